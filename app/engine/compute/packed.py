"""The weights of all layers in arrays, as the kernels that run through them take them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from app.engine.compute.layers import Fp32Linear, Int8Linear, KernelNorm, Linear, Norm

Array = np.ndarray[Any, Any]


class Packed(NamedTuple):
    """Of each layer some linear layers and some norms."""

    weights: Array
    """(layers, linear layers, 6): see kernels.encoder.apply."""
    norms: Array
    """(layers, 2 * norms, width): weight and bias of the first norm, then of the second …"""
    epsilons: tuple[np.float32, ...]
    """Of each of a layer's norms."""


def packed(
    linears: Sequence[Sequence[Linear]], norms: Sequence[Sequence[Norm]], kind: type[Int8Linear] | type[Fp32Linear]
) -> Packed | None:
    """The layers' arrays; None where not all are the kernels' and of this kind. No tensor may move any more."""
    whole = [[each for each in layer if isinstance(each, kind) and each.is_packed] for layer in linears]
    plain = [[each for each in layer if isinstance(each, KernelNorm)] for layer in norms]
    if any(len(some) < len(layer) for some, layer in zip([*whole, *plain], [*linears, *norms], strict=True)):
        return None
    weights = np.array([[(*each.addresses, each.is_mixed) for each in layer] for layer in whole], np.int64)
    arrays = np.array([[array for norm in layer for array in norm.arrays] for layer in plain])
    return Packed(weights, arrays, tuple(np.float32(norm.epsilon) for norm in plain[0]))
