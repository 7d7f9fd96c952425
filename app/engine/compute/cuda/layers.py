"""Linear layers and norms on a CUDA device: cuBLAS with activations in its epilogue, fused sums and norms."""

from typing import TYPE_CHECKING

import torch

from app.engine.compute.activations import GELU, GELU_TANH, RELU, Activation
from app.engine.compute.cuda import HAS_KERNELS
from app.engine.compute.layers import Linear, PlainLinear, PlainNorm

if TYPE_CHECKING or HAS_KERNELS:
    from app.engine.compute.cuda import kernels


IN_EPILOGUE = (GELU, GELU_TANH, RELU)
FEW_ROWS = (1, 2, 4)
"""With so few rows a product is a matter of reading the weights, and our kernel begins before its input is there. Each
number is compiled by itself; that of 3 would be when 3 rows come for the first time."""


class CudaLinear(PlainLinear):
    """A linear layer by cuBLAS."""

    __slots__ = ()

    def __call__(self, x: torch.Tensor, act: Activation | None = None, add: torch.Tensor | None = None) -> torch.Tensor:
        """See Linear. In bfloat16 the product's epilogue activates; with more than a few rows its GELU is the tanh
        form, apart by less than bfloat16 can tell."""
        if x.dtype is not torch.bfloat16 or (act is not None and act not in IN_EPILOGUE):
            return super().__call__(x, act, add)
        if HAS_KERNELS and x.shape[0] in FEW_ROWS and x.shape[1] <= kernels.LANES_MAX:
            y = kernels.linear_few(x, self.weight, self.bias, act.number if act else 0, x.dtype)
        elif act is None or self.bias is None:
            return super().__call__(x, act, add)
        else:
            y = torch._addmm_activation(self.bias, x, self.weight.T, use_gelu=act is not RELU)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage] (its only name)
        return y if add is None else y + add

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """x (rows, inputs) → (rows, outputs) in fp32, never rounded to bfloat16 on the way."""
        if x.dtype is not torch.bfloat16:
            return self(x).float()
        if not HAS_KERNELS:
            found = torch.mm(x, self.weight.T, out_dtype=torch.float32)
        elif x.shape[0] in FEW_ROWS and x.shape[1] <= kernels.LANES_MAX:
            return kernels.linear_few(x, self.weight, self.bias, 0, torch.float32)
        else:
            found = kernels.scores(x, self.weight)
        return found if self.bias is None else found.add_(self.bias)


class CudaNorm(PlainNorm):
    """A layer norm that takes the sum before it along."""

    __slots__ = ()

    def after(self, linear: Linear, x: torch.Tensor, add: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See Norm.after."""
        if not HAS_KERNELS:
            return super().after(linear, x, add)
        return kernels.add_norm(linear(x), add, self.weight, self.bias, self.epsilon, keeps=True)

    def over(self, linear: Linear, x: torch.Tensor, add: torch.Tensor) -> torch.Tensor:
        """See Norm.over."""
        if not HAS_KERNELS:
            return super().over(linear, x, add)
        return kernels.add_norm(linear(x), add, self.weight, self.bias, self.epsilon, keeps=False)[1]
