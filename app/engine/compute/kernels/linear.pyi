from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

def quantise(x: Array, quantised: Array, scales: Array, zeros: Array) -> None: ...
def linear_int8(
    quantised: Array, scales: Array, zeros: Array, panels: Array, weight_scales: Array, weight_sums: Array, bias: Array,
    activation: int, added: Array, out: Array,
) -> None: ...  # fmt: skip
def linear_fp32(x: Array, panels: Array, bias: Array, activation: int, added: Array, out: Array) -> None: ...
