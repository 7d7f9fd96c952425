from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

COUNTER_WORDS: int

def encode(
    x: Array, starts: Array, lengths: Array, wanted: Array, weights: Array, norms: Array,
    epsilons: Array, activation: int, scale: np.float32, qkv: Array, threads: int, out: Array,
) -> None: ...  # fmt: skip
