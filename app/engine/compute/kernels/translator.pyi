from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Pair = tuple[Array, Array]
Room = tuple[Array, ...]
Model = tuple[Array, Array, np.float32, int, np.float32, bool]
Caches = tuple[Array, Array, Array, Array]

STAGES: int

def tasks_of(stage: int, rows: int, parts: int, source_parts: int, weights: Array, is_int8: bool) -> int: ...
def run(stage: int, task: int, model: Model, places: tuple[Array, ...], cache: Caches, numbers: Room) -> None: ...
def room_of(start: Array, out: Array, layers: int, heads: int, inner: int, parts: int, source_parts: int) -> Room: ...
def step(
    start: Array,
    own: Pair,
    sources: Pair,
    weights: Array,
    is_int8: bool,
    norms: Array,
    epsilon: np.float32,
    activation: int,
    scale: np.float32,
    caches: Caches,
    threads: int,
    out: Array,
) -> None: ...
