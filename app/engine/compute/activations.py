"""The activation functions that the hosted families' config.json files name (transformers' ACT2FN)."""

from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional

from app.errors import VerificationFailed

Activation = Callable[[torch.Tensor], torch.Tensor]

ACTIVATIONS: dict[str, Activation] = {
    "gelu": functional.gelu,
    "gelu_new": partial(functional.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(functional.gelu, approximate="tanh"),
    "relu": functional.relu,
    "silu": functional.silu,
    "swish": functional.silu,
    "tanh": torch.tanh,
}


def activation(name: str) -> Activation:
    """The function called `name`. Raises VerificationFailed naming the known ones."""
    if name not in ACTIVATIONS:
        raise VerificationFailed(f"config.json asks for the activation {name!r}; known are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
