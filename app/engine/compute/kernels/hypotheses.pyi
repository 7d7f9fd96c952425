from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

def best_of_hypotheses(scores: Array, banned: Array, ids: Array, values: Array) -> None: ...
