import torch

LANES_MAX: int

def attend(
    query: torch.Tensor,
    short: torch.Tensor,
    slots: torch.Tensor,
    positions: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    scale: float,
    out: torch.Tensor,
    *,
    stores: bool,
) -> None: ...
def store(
    packed: torch.Tensor, slots: torch.Tensor, positions: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> None: ...
def gather(keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor, positions: torch.Tensor) -> torch.Tensor: ...
def add_norm(
    x: torch.Tensor, add: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, epsilon: float, *, keeps: bool
) -> tuple[torch.Tensor, torch.Tensor]: ...
def linear_few(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, activation: int, dtype: torch.dtype
) -> torch.Tensor: ...
def scores(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor: ...
