from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

def attend_rows(
    qkv: Array, starts: Array, lengths: Array, heads: int, scale: np.float32, threads: int, out: Array
) -> None: ...
def attend_spans(
    qkv: Array, spans: Array, keys: Array, values: Array, scale: np.float32, threads: int, out: Array
) -> None: ...
