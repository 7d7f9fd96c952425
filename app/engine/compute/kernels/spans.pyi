from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

def pack_keys(keys: Array, first: int, stride: int, positions: int, width: int, panels: Array, start: int) -> None: ...
def pack_values(
    values: Array, first: int, stride: int, positions: int, width: int, panels: Array, start: int
) -> None: ...
def attend_rows(
    qkv: Array, starts: Array, lengths: Array, heads: int, scale: np.float32, threads: int, out: Array
) -> None: ...
def attend_spans(
    qkv: Array, spans: Array, keys: Array, values: Array, scale: np.float32, threads: int, out: Array
) -> None: ...
