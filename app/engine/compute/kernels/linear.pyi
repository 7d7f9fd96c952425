from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Layer = tuple[Array, Array, Array, Array]

def activate(values: Array, count: int, activation: int, is_int8: bool) -> None: ...
def quantise(x: Array, is_mixed: bool, quantised: Array, scales: Array, zeros: Array) -> None: ...
def linear_int8(
    x: Array, is_mixed: bool, layer: Layer, activation: int, added: Array, threads: int, out: Array
) -> None: ...
def linear_fp32(
    x: Array, panels: Array, bias: Array, activation: int, added: Array, threads: int, out: Array
) -> None: ...
