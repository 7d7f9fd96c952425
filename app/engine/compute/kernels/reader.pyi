from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

def read(
    x: Array,
    prompts: Array,
    singles: Array,
    wanted: Array,
    slots: Array,
    positions: Array,
    weights: Array,
    norms: Array,
    epsilon: np.float32,
    activation: int,
    scales: Array,
    keys: Array,
    values: Array,
    threads: int,
    out: Array,
) -> None: ...
