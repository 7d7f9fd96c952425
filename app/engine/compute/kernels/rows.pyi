from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

def normalise(x: Array, weight: Array, bias: Array, epsilon: np.float32, out: Array) -> None: ...
def best_of_rows(scores: Array, found: Array) -> None: ...
