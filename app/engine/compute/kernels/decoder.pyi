from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Model = tuple[object, ...]
Places = tuple[Array, Array, Array, Array]
Cache = tuple[Array, Array]
Room = tuple[Array, ...]

STAGES: int

def tasks_of(stage: int, rows: int, parts: int, weights: Array, is_int8: bool) -> int: ...
def run(stage: int, task: int, model: Model, places: Places, cache: Cache, room: Room) -> None: ...
def step(
    start: Array,
    slots: Array,
    positions: Array,
    weights: Array,
    is_int8: bool,
    norms: Array,
    epsilon: np.float32,
    activation: int,
    scales: Array,
    keys: Array,
    values: Array,
    threads: int,
    out: Array,
) -> None: ...
