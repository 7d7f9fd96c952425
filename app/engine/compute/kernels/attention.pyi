from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

def cut(lengths: Array) -> Array: ...
def begins_of(parts: Array, rows: int) -> Array: ...
def store(
    packed: Array, offset: int, tokens: Array, slots: Array, positions: Array, keys: Array, values: Array
) -> None: ...
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
