from app.engine.compute.kernels.linear import Array

PAIR_MOST: int

def pair_row(numbers: Array, zero: int, room: Array) -> int: ...
