"""Linear layers and norms as a family uses them, whatever holds their weights: torch, or packed for the kernels."""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch

from app.engine.compute.activations import Activation
from app.engine.compute.kernels import HAS_FMA, best, linear, mixing, rows, threads, tiles
from app.engine.compute.kernels.sixteen import IN_16_BITS, INPUTS_OF
from app.engine.compute.kernels.vectors import PANEL
from app.engine.jobs import Precision

ALIGNMENT = 64
TILED_ROWS = 24
"""For each thread: with fewer rows the threads share panels instead (measured at 768 wide, int8)."""
Array = np.ndarray[Any, Any]


class Linear(Protocol):
    """x (rows, inputs) → act(x W + bias) + add, (rows, outputs)."""

    def __call__(
        self, x: torch.Tensor, act: Activation | None = None, add: torch.Tensor | None = None
    ) -> torch.Tensor: ...


class Norm(Protocol):
    """Layer norm over the last axis of (rows, width)."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor: ...

    def after(self, linear: Linear, x: torch.Tensor, add: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """linear(x) + add, and its norm: what a block hands on, and what the next layer reads."""
        ...

    def over(self, linear: Linear, x: torch.Tensor, add: torch.Tensor) -> torch.Tensor:
        """The norm of linear(x) + add, where that is what a block hands on."""
        ...


class PlainLinear:
    """A linear layer by torch, on any device and in any dtype."""

    __slots__ = ("bias", "weight")

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.weight = weight
        self.bias = bias

    def __call__(self, x: torch.Tensor, act: Activation | None = None, add: torch.Tensor | None = None) -> torch.Tensor:
        y = torch.nn.functional.linear(x, self.weight, self.bias)
        if act is not None:
            y = act.function(y)
        return y if add is None else y + add


class PlainNorm:
    """A layer norm by torch."""

    __slots__ = ("bias", "epsilon", "weight")

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, epsilon: float) -> None:
        self.weight = weight
        self.bias = bias
        self.epsilon = epsilon

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.epsilon)

    def after(self, linear: Linear, x: torch.Tensor, add: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See Norm.after."""
        total = linear(x, add=add)
        return total, self(total)

    def over(self, linear: Linear, x: torch.Tensor, add: torch.Tensor) -> torch.Tensor:
        """See Norm.over."""
        return self(linear(x, add=add))


class KernelNorm(PlainNorm):
    """The same by a kernel, for fp32 on the CPU."""

    __slots__ = ()

    @property
    def arrays(self) -> tuple[Array, Array]:
        """Weight and bias, as the kernels take a norm."""
        return self.weight.numpy(), self.bias.numpy()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        rows.normalise(x.numpy(), *self.arrays, np.float32(self.epsilon), out.numpy())
        return out


class PackedLinear:
    """What both packed kinds share: padded bias, and the shape of the result."""

    is_int8 = is_mixed = False
    """Whether weights and rows are quantised, and whether they are turned before."""

    def __init__(self, outputs: int, bias: torch.Tensor | None) -> None:
        self.outputs = outputs
        self.bias = torch.zeros(math.ceil(outputs / PANEL) * PANEL)
        if bias is not None:
            self.bias[:outputs] = bias.float()

    @property
    def is_packed(self) -> bool:
        """Whether the panels are filled: the kernels run here."""
        return True

    @property
    def addresses(self) -> tuple[int, ...]:
        """Where panels, scales, sums and bias lie (0 for what there is not), and how many outputs there are."""
        raise NotImplementedError

    def best(self, x: torch.Tensor, banned: Sequence[int]) -> list[int]:
        """The best output of each row of x (rows, inputs), none of `banned`; -1 where the best is not finite."""
        found = np.empty(len(x), np.int64)
        best.best_outputs(
            x.contiguous().numpy(), self.is_int8, self.is_mixed, np.array(self.addresses, np.int64),
            np.array(banned, np.int64), threads(), found,
        )  # fmt: skip
        return found.tolist()

    def _call(self, x: torch.Tensor, act: Activation | None, add: torch.Tensor | None, out: Array) -> None:
        raise NotImplementedError

    def __call__(self, x: torch.Tensor, act: Activation | None = None, add: torch.Tensor | None = None) -> torch.Tensor:
        out = torch.empty(x.shape[0], self.outputs)
        self._call(x.contiguous(), act, add, out.numpy())
        return out


class Fp32Linear(PackedLinear):
    """fp32 weights in panels (panels, inputs, PANEL) for the fused multiply-add units."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__(weight.shape[0], bias)
        self.panels = _aligned((len(self.bias) // PANEL, weight.shape[1], PANEL), torch.float32)
        padded = torch.zeros(len(self.bias), weight.shape[1])
        padded[: self.outputs] = weight.float()
        self.panels.copy_(padded.view(-1, PANEL, weight.shape[1]).transpose(1, 2))

    def _call(self, x: torch.Tensor, act: Activation | None, add: torch.Tensor | None, out: Array) -> None:
        added = np.empty((len(out), 0), np.float32) if add is None else add.numpy()
        number = act.number if act else 0
        linear.linear_fp32(x.numpy(), self.panels.numpy(), self.bias.numpy(), number, added, threads(), out)

    @property
    def addresses(self) -> tuple[int, ...]:
        """See PackedLinear."""
        return self.panels.data_ptr(), 0, 0, self.bias.data_ptr(), self.outputs

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        """Rows `ids` of the weight, (ids, inputs): an embedding table tied to the head needs no second copy."""
        return self.panels[ids // PANEL, :, ids % PANEL]


class Int8Linear(PackedLinear):
    """int8 weights, one scale an output; each row of x gets a scale and a zero of its own, the sums are exact.

    Weights are held in panels (panels, inputs / 4, PANEL, 4), as the units read them. Without AVX2, `_int_mm` computes
    the integers of VNNI's kernels. (Dettmers et al. 2022, section 2: row-wise and column-wise scales, and zeros for
    what is not centred) `mixes` asks for x and the weights to be turned before they are quantised, which
    kernels/mixing.py can do for most widths: about half the error where a few numbers of x are much larger than others.
    """

    is_int8 = True

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, *, mixes: bool = False) -> None:
        super().__init__(weight.shape[0], bias)
        inputs = weight.shape[1]
        if inputs % INPUTS_OF:
            raise ValueError(f"int8 layers read a multiple of {INPUTS_OF} numbers, not {inputs}: keep it in fp32")
        self.is_mixed = mixes and mixing.can_mix(inputs)
        weight = mixed(weight.float().contiguous()) if self.is_mixed else weight.float()
        scales = weight.abs().amax(1) / 127
        self.scales = torch.zeros(len(self.bias))
        self.scales[: self.outputs] = scales
        whole = torch.zeros(len(self.bias), inputs)
        whole[: self.outputs] = (weight / scales.clamp_min(1e-30)[:, None]).round()
        self.sums = whole.sum(1).to(torch.int32)
        self.columns: torch.Tensor | None = None
        self.panels = _aligned((len(self.bias) // PANEL if HAS_FMA else 0, inputs // 4, PANEL, 4), torch.int8)
        if HAS_FMA:
            self.panels.copy_(whole.to(torch.int8).view(-1, PANEL, inputs // 4, 4).transpose(1, 2))
            if IN_16_BITS:  # PANEL_ZERO more, in unsigned bytes
                self.panels ^= -128
        else:
            self.columns = whole.to(torch.int8).T.contiguous()

    @cached_property
    def arrays(self) -> tuple[Array, Array, Array, Array]:
        """Panels, scales, sums and bias, as the kernels take a layer: views, once the tensors do not move any more."""
        return self.panels.numpy(), self.scales.numpy(), self.sums.numpy(), self.bias.numpy()

    @property
    def addresses(self) -> tuple[int, ...]:
        """See PackedLinear."""
        return *(array.ctypes.data for array in self.arrays), self.outputs

    @property
    def is_packed(self) -> bool:
        """See PackedLinear."""
        return self.columns is None

    def _call(self, x: torch.Tensor, act: Activation | None, add: torch.Tensor | None, out: Array) -> None:
        added = np.empty((len(out), 0), np.float32) if add is None else add.numpy()
        number = act.number if act else 0
        if not self.is_packed:
            self._by_torch(x, act, add, out)
        elif len(out) >= TILED_ROWS * threads():
            tiles.project_tiles(x.numpy(), self.is_mixed, self.arrays, number, added, threads(), out)
        else:
            linear.linear_int8(x.numpy(), self.is_mixed, self.arrays, number, added, threads(), out)

    def _by_torch(self, x: torch.Tensor, act: Activation | None, add: torch.Tensor | None, out: Array) -> None:
        x = mixed(x) if self.is_mixed else x
        quantised, scales = torch.empty(x.shape, dtype=torch.uint8), torch.empty(x.shape[0])
        zeros = torch.empty(x.shape[0], dtype=torch.int32)
        linear.quantise(x.numpy(), quantised.numpy(), scales.numpy(), zeros.numpy())
        assert self.columns is not None, "the caller has looked. This is a bug."
        signed = (quantised.to(torch.int16) - 128).to(torch.int8)
        sums = torch._int_mm(signed, self.columns) - (zeros - 128)[:, None] * self.sums  # pyright: ignore[reportPrivateImportUsage, reportPrivateUsage] (its only name)
        y = (sums.float() * (scales[:, None] * self.scales) + self.bias)[:, : self.outputs]
        y = act.function(y) if act else y
        out[:] = (y if add is None else y + add).numpy()


def mixed(x: torch.Tensor) -> torch.Tensor:
    """Rows of x (rows, inputs), contiguous, turned as kernels/mixing.py does it."""
    out = torch.empty_like(x)
    mixing.mix(x.numpy(), out.numpy())
    return out


class Tail:
    """What follows the attention of a post-norm layer: h = norm(out(read) + x), then norm(down(act(up(h))) + h)."""

    def __init__(self, *, out: Linear, norm_read: Norm, up: Linear, act: Activation, down: Linear, norm: Norm) -> None:
        self.out, self.norm_read, self.up, self.act, self.down, self.norm = out, norm_read, up, act, down, norm

    def __call__(self, read: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """read, x (tokens, width) → (tokens, width)."""
        return self.widen(self.add_read(read, x))

    def add_read(self, read: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The first half: norm(out(read) + x)."""
        return self.norm_read.over(self.out, read, x)

    def widen(self, h: torch.Tensor) -> torch.Tensor:
        """The second half: norm(down(act(up(h))) + h)."""
        return self.norm.over(self.down, self.up(h, act=self.act), h)


def _aligned(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """An uninitialised tensor whose first element lies at a multiple of ALIGNMENT bytes, as aligned loads need."""
    size = torch.empty((), dtype=dtype).element_size()
    held = torch.empty(math.prod(shape) + ALIGNMENT // size, dtype=dtype)
    start = (-held.data_ptr() % ALIGNMENT) // size
    return held[start : start + math.prod(shape)].view(*shape)


def make_linear(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    precision: Precision,
    is_exact: bool = False,
    mixes: bool = False,
) -> Linear:
    """The fastest linear layer for this precision here; `is_exact` layers are never quantised, and see Int8Linear."""
    if weight.device.type == "cpu":
        if precision is Precision.INT8 and not is_exact and weight.shape[1] % INPUTS_OF == 0:
            return Int8Linear(weight, bias, mixes=mixes)
        if precision in (Precision.FP32, Precision.INT8) and HAS_FMA:
            return Fp32Linear(weight, bias)
    return PlainLinear(weight, bias)


def make_norm(weight: torch.Tensor, bias: torch.Tensor, epsilon: float, *, precision: Precision) -> Norm:
    """The layer norm for this precision here."""
    if weight.device.type == "cpu" and precision is not Precision.BF16:
        return KernelNorm(weight, bias, epsilon)
    return PlainNorm(weight, bias, epsilon)
