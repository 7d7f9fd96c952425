from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

def best_outputs(
    x: Array, is_int8: bool, is_mixed: bool, layer: Array, banned: Array, threads: int, found: Array
) -> None: ...
