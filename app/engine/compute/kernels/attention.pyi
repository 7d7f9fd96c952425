from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

def store(packed: Array, offset: int, slots: Array, positions: Array, keys: Array, values: Array) -> None: ...
def attend(
    tokens: Array,
    queries: Array,
    slots: Array,
    lengths: Array,
    keys: Array,
    values: Array,
    scale: np.float32,
    threads: int,
    out: Array,
) -> None: ...
