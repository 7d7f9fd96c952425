import torch

def best_tokens(
    scores: torch.Tensor,
    fed: torch.Tensor | None = None,
    positions: torch.Tensor | None = None,
    position_max: int = 0,
) -> torch.Tensor: ...
def draw(
    scores: torch.Tensor, temperatures: torch.Tensor, least: torch.Tensor, uniforms: torch.Tensor
) -> torch.Tensor: ...
