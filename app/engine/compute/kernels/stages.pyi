from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

def finish_stage(
    stage: int,
    counters: Array,
    marks: Array,
    patience: int,
    model: tuple[Any, ...],
    places: tuple[Any, ...],
    cache: tuple[Array, ...],
    room: tuple[Array, ...],
) -> None: ...
