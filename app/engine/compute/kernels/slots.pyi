from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

def copy_slots(held: Array, sources: Array, targets: Array, length: int) -> None: ...
