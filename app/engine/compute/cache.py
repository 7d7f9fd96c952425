"""The key-value cache in slots, and which token of a step belongs where in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from app.engine.compute.kernels import slots as kernels
from app.engine.compute.kernels.heads import BLOCK
from app.engine.compute.plain import sent

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive tokens of one row in a packed batch."""

    slot: int
    """The row's place in the cache."""
    start: int
    """Position of the first of these tokens in its row."""
    count: int
    is_prompt: bool = False
    """Attended to as a matrix; on the CPU however few they are, so that how a prompt is cut does not decide how it is
    computed."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where packed rows begin and end, as flash attention reads it: (rows + 1,) each, and the longest of them."""

    queries: torch.Tensor
    keys: torch.Tensor
    longest_query: int
    longest_key: int
    places: tuple[torch.Tensor, torch.Tensor] | None = None
    """Slots and positions of all keys, in the rows' order; None where the step's own tokens are all there are."""


class StepTokens:
    """Where the tokens of one step lie, worked out once for all layers."""

    def __init__(self, spans: Sequence[Span], device: torch.device, wanted: Array | None = None) -> None:
        slots: list[int] = []
        positions: list[int] = []
        short: list[int] = []
        long: list[int] = []
        self.prompts: list[tuple[int, Span]] = []
        """Prompts' spans with the batch index of their first token."""
        for span in spans:
            is_long = span.is_prompt and (span.count > 1 or device.type == "cpu")
            if is_long:
                self.prompts.append((len(slots), span))
            (long if is_long else short).extend(range(len(slots), len(slots) + span.count))
            slots.extend([span.slot] * span.count)
            positions.extend(range(span.start, span.start + span.count))
        self.slots_array: Array = np.array(slots, np.int64)
        self.positions_array: Array = np.array(positions, np.int64)
        self.lengths_array: Array = self.positions_array + 1
        self.short_array: Array = np.array(short, np.int64)
        """The tokens that are attended to one by one: all but the prompts'."""
        self.is_single = bool(spans) and not long and all(span.count == 1 for span in spans)
        """Whether each row has one token here, in a slot of its own, and none is a prompt's."""
        self.has_rows = all(span.is_prompt or span.count == 1 for span in spans)
        """Whether no token reads what another one that is no prompt's stores here."""
        self.prompts_array: Array = np.array(
            [(first, span.slot, span.start, span.count) for first, span in self.prompts], np.int64
        ).reshape(-1, 4)
        self.wanted = wanted
        """Indices of the tokens whose hidden states are read, in order, and of every one that is no prompt's; None for
        all. A decoder that reads its prompts itself computes no other in its last layer."""
        self._long = long
        self._device = device
        self.layout: Layout | None = None
        """Of the prompts; worked out by whoever attends to them so."""
        self._masks: dict[Span, torch.Tensor | None] = {}

    @property
    def wanted_array(self) -> Array:
        """See wanted."""
        return np.arange(len(self.slots_array)) if self.wanted is None else self.wanted

    @cached_property
    def slots(self) -> torch.Tensor:
        """On the device, as the others that follow: sent when first asked for, which the CPU's kernels do not."""
        return sent(self.slots_array, self._device)

    @cached_property
    def positions(self) -> torch.Tensor:
        """See positions_array."""
        return sent(self.positions_array, self._device)

    @cached_property
    def short(self) -> torch.Tensor:
        """See short_array."""
        return sent(self.short_array, self._device)

    @cached_property
    def long(self) -> torch.Tensor:
        """The prompts' tokens."""
        return sent(np.array(self._long, np.int64), self._device) if self.prompts else self.slots[:0]

    def mask(self, span: Span) -> torch.Tensor | None:
        """What the tokens of a prompt may see, (count, start + count); None where plain causality says it."""
        if span not in self._masks:
            whole = torch.ones(span.count, span.start + span.count, dtype=torch.bool, device=self._device)
            self._masks[span] = whole.tril(span.start) if span.start else None
        return self._masks[span]


class SingleTokens(StepTokens):
    """One token of each of some rows, whose slots and positions (rows,) are written after this was made."""

    def __init__(self, slots: torch.Tensor, positions: torch.Tensor) -> None:
        super().__init__((), slots.device)
        self.slots, self.positions = slots, positions
        self.short = torch.arange(len(slots), device=slots.device)


class PromptTokens(StepTokens):
    """Prompts alone, whose slots, positions (tokens,), layout and `prompts` are written after this was made."""

    def __init__(self, slots: torch.Tensor, positions: torch.Tensor, layout: Layout) -> None:
        super().__init__((), slots.device)
        self.slots, self.positions, self.layout = slots, positions, layout
        self.long = torch.arange(len(slots), device=slots.device)
        self.short = self.long[:0]


class SlotCache:
    """Keys and values of every slot: two preallocated tensors (layers, slots, heads, positions, head_dim).

    On the CPU the heads of a position lie side by side: a single token reads its row's positions in one go. On a GPU,
    where each head has a reader of its own, the positions of a head do.
    """

    def __init__(
        self, *, layers: int, slots: int, heads: int, positions: int, head_dim: int, dtype: torch.dtype,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.arrays: list[tuple[Array, Array]] = []
        """Each layer's keys and values (slots, positions, heads, head_dim) as the kernels read them (bfloat16 as its 16
        bits), positions in whole blocks; empty but on the CPU."""
        self.whole: tuple[Array, Array] | None = None
        """The same for all layers at once."""
        if device.type != "cpu":
            shape = (layers, slots, heads, positions, head_dim)
            self.keys, self.values = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
            return
        shape = (layers, slots, -(-positions // BLOCK) * BLOCK, heads, head_dim)
        both = [torch.zeros(shape, dtype=dtype) for _ in range(2)]
        self.keys, self.values = (held.transpose(2, 3) for held in both)
        keys, values = ((held.view(torch.uint16) if dtype is torch.bfloat16 else held).numpy() for held in both)
        self.arrays = list(zip(keys, values, strict=True))
        self.whole = keys, values

    @property
    def memory_bytes(self) -> int:
        """Bytes that both tensors hold."""
        return 2 * self.keys.numel() * self.keys.element_size()

    def clear(self, slots: Sequence[int]) -> None:
        """Forget what may not be a number: behind a mask it would still spoil the next row's sums."""
        for held in (self.keys, self.values):
            held[:, list(slots)] = 0

    def copy_slots(self, sources: Sequence[int], targets: Sequence[int], length: int) -> None:
        """Give each target slot the first `length` positions of its source slot. No slot is source and target."""
        for held in self.whole or ():
            kernels.copy_slots(held, np.array(sources, np.int64), np.array(targets, np.int64), length)
        if not self.whole:
            for held in (self.keys, self.values):
                held[:, list(targets), :, :length] = held[:, list(sources), :, :length]
