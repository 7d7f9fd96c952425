"""Which cache slots are free, and which prompt each still holds: a new row takes over what its prompt shares with one.

Pure: no tensors. A slot's prompt outlives its row, until another row takes the slot; those that were given back first
are taken first. Only prompts are remembered, not what was produced after them: produced tokens are computed one by one,
with other rounding than a prompt's. Nothing is shared between tenants, who could else
learn from the time of an answer what others ask.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class Held:
    """A prompt in a slot."""

    tenant: str
    prompt: tuple[int, ...]
    count: int = 0
    """Of its tokens, those whose keys are in the cache."""


@dataclass(frozen=True, slots=True)
class Seat:
    """The slots of a new row."""

    slots: tuple[int, ...]
    reused: int = 0
    """Tokens of its prompt whose keys its first slot has, or gets from `source`."""
    source: int | None = None
    """The slot of a running row from which they must be copied."""


class SlotPool:
    """The slots of one decoder."""

    def __init__(self, slots: int, *, shared_tokens_min: int) -> None:
        self.size = slots
        self._shared_tokens_min = shared_tokens_min
        self._free = dict.fromkeys(range(slots))
        self._held: dict[int, Held] = {}

    @property
    def free_count(self) -> int:
        """How many slots no row has."""
        return len(self._free)

    def take(self, count: int, tenant: str, prompt: tuple[int, ...], *, reusable: int) -> Seat:
        """`count` free slots for a row, whose prompt may be reused up to `reusable` tokens. The caller has looked."""
        assert count <= len(self._free), "the caller seats only rows that fit. This is a bug."
        best, shared = self._best(tenant, prompt[: max(0, reusable)])
        is_free = best in self._free
        first = best if best is not None and is_free else next(iter(self._free))
        del self._free[first]
        others = list(self._free)[: count - 1]
        for slot in others:
            del self._free[slot]
        for slot in (first, *others):
            self._held.pop(slot, None)
        self._held[first] = Held(tenant, prompt, shared if is_free else 0)
        return Seat((first, *others), shared, None if is_free else best)

    def note(self, slot: int, count: int) -> None:
        """So many tokens of the prompt of the row that has `slot` are in the cache now."""
        held = self._held.get(slot)
        if held is not None:
            held.count = min(count, len(held.prompt))

    def give_back(self, slots: Sequence[int], *, keeps_prompt: bool) -> None:
        """A row has ended; without `keeps_prompt` nothing in its slots is to be used again."""
        for slot in slots:
            self._free[slot] = None
            if not keeps_prompt:
                self._held.pop(slot, None)

    def _best(self, tenant: str, prompt: tuple[int, ...]) -> tuple[int | None, int]:
        """The slot that shares most with `prompt`, a free one rather than a running row's, and how many tokens."""
        least = self._shared_tokens_min
        best: int | None = None
        shared = 0
        if not least or len(prompt) < least:
            return None, 0
        start = prompt[:least]
        for slot, held in self._held.items():
            if held.tenant != tenant or held.count < least or held.prompt[:least] != start:
                continue
            found = common(prompt, held.prompt[: held.count])
            if found > shared or (found == shared and slot in self._free and best not in self._free):
                best, shared = slot, found
        return best, shared


def common(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many tokens both begin with."""
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return place
    return min(len(one), len(other))
