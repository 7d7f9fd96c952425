"""Copies rows of the key-value cache from slot to slot."""

from numba import njit, prange

from app.engine.compute.kernels.linear import PARALLEL


@njit(**PARALLEL)
def copy_slots(held, sources, targets, length):
    """The first `length` positions of each source slot into its target; no slot is both.

    held: (layers, slots, heads, positions, head_dim).
    """
    layers, _, heads, _, head_dim = held.shape
    for work in prange(layers * sources.size):
        layer, place = work // sources.size, work % sources.size
        for head in range(heads):
            source, target = held[layer, sources[place], head], held[layer, targets[place], head]
            for position in range(length):
                for part in range(head_dim):
                    target[position, part] = source[position, part]
