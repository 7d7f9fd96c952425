"""The weights of all layers in arrays, as the kernels that run through them take them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from app.engine.compute.layers import Fp32Linear, Int8Linear, KernelNorm, Linear, Norm

Array = np.ndarray[Any, Any]


class Packed(NamedTuple):
    """Of each layer four linear layers and two norms."""

    weights: Array
    """(layers, 4, 6): see kernels.encoder.apply."""
    norms: Array
    """(layers, 4, width): weight and bias of the first norm, and of the second."""
    epsilons: tuple[np.float32, np.float32]


def packed(
    linears: Sequence[Sequence[Linear]], norms: Sequence[Sequence[Norm]], kind: type[Int8Linear] | type[Fp32Linear]
) -> Packed | None:
    """The layers' arrays; None where not all are the kernels' and of this kind. No tensor may move any more."""
    whole = [[each for each in layer if isinstance(each, kind) and each.is_packed] for layer in linears]
    pairs = [[each for each in layer if isinstance(each, KernelNorm)] for layer in norms]
    if {4} != {len(layer) for layer in whole} or {2} != {len(pair) for pair in pairs}:
        return None
    weights = np.array([[(*each.addresses, each.is_mixed) for each in layer] for layer in whole], np.int64)
    arrays = np.array([[*first.arrays, *last.arrays] for first, last in pairs])
    first, last = pairs[0]
    return Packed(weights, arrays, (np.float32(first.epsilon), np.float32(last.epsilon)))
