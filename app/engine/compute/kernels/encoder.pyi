from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

COUNTER_WORDS: int

def encode(
    x: Array, starts: Array, lengths: Array, weights: Array, norms: Array, epsilons: tuple[np.float32, np.float32],
    activation: int, scale: np.float32, qkv: Array, threads: int,
) -> None: ...  # fmt: skip
