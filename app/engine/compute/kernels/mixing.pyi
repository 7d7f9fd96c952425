from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

INPUTS_LEAST: int

def can_mix(inputs: int) -> bool: ...
def mix(x: Array, out: Array) -> None: ...
