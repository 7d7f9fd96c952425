"""The activation functions that the hosted families' config.json files name (transformers' ACT2FN)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn import functional

from app.errors import VerificationFailed


@dataclass(frozen=True, slots=True)
class Activation:
    """A function of torch's, and the number by which kernels/linear.py knows it."""

    function: Callable[[torch.Tensor], torch.Tensor]
    number: int


GELU_TANH = Activation(partial(functional.gelu, approximate="tanh"), 1)
GELU = Activation(functional.gelu, 2)
RELU = Activation(functional.relu, 3)
SILU = Activation(functional.silu, 4)
TANH = Activation(torch.tanh, 5)
ACTIVATIONS: dict[str, Activation] = {
    "gelu": GELU,
    "gelu_new": GELU_TANH,
    "gelu_pytorch_tanh": GELU_TANH,
    "relu": RELU,
    "silu": SILU,
    "swish": SILU,
    "tanh": TANH,
}


def activation(name: str) -> Activation:
    """The function called `name`. Raises VerificationFailed naming the known ones."""
    if name not in ACTIVATIONS:
        raise VerificationFailed(f"config.json asks for the activation {name!r}; known are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
