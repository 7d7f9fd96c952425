from app.engine.compute.kernels.linear import Array

PAIR_MOST: int

def pair_row(room: Array, inputs: int, zero: int) -> int: ...
