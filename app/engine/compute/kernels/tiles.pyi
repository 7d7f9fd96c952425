from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Layer = tuple[Array, Array, Array, Array]

def project_tiles(
    x: Array, is_mixed: bool, layer: Layer, activation: int, added: Array, threads: int, out: Array
) -> None: ...
