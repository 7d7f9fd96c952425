from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Layer = tuple[Array, Array, Array, Array]

def finish_layer(
    read: Array, x: Array, dense: Layer, up: Layer, down: Layer, norms: tuple[Array, Array, Array, Array],
    epsilons: tuple[np.float32, np.float32], activation: int, threads: int, out: Array,
) -> None: ...  # fmt: skip
def project_tiles(x: Array, layer: Layer, activation: int, added: Array, threads: int, out: Array) -> None: ...
