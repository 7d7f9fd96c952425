"""Copies rows of the key-value cache from slot to slot."""

from numba import njit, prange

from app.engine.compute.kernels.linear import PARALLEL


@njit(**PARALLEL)
def copy_slots(held, sources, targets, length):
    """The first `length` positions of each source slot into its target; no slot is both.

    held: (layers, slots, positions, heads, head_dim).
    """
    layers = held.shape[0]
    for work in prange(layers * sources.size):
        layer, place = work // sources.size, work % sources.size
        source, target = held[layer, sources[place]].reshape(-1), held[layer, targets[place]].reshape(-1)
        for part in range(length * held.shape[3] * held.shape[4]):
            target[part] = source[part]
