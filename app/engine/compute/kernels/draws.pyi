from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

def draw_rows(
    scores: Array,
    places: Array,
    temperatures: Array,
    top_ks: Array,
    top_ps: Array,
    min_ps: Array,
    uniforms: Array,
    found: Array,
) -> None: ...
