from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

IN_16_BITS: bool
ROOM: int
INPUTS_OF: int
LEVELS: int
LEVELS_LEAST: int
SPREAD_MOST: int
MOST: int
CENTER_LEAST: int

def lay_row(numbers: Array, zero: int, room: Array) -> int: ...
