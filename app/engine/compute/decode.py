"""A loaded decoder and its slots: feeds planned tokens of many rows in one forward and hands back their scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from app.engine.compute.cache import SlotCache, Span, StepTokens
from app.engine.compute.families.gpt2 import Gpt2
from app.engine.compute.families.marian import Marian


@dataclass(frozen=True, slots=True)
class Feed:
    """Tokens of one slot to feed in this step."""

    slot: int
    start: int
    ids: tuple[int, ...]
    is_prompt: bool = False


class Decoder:
    """GPT-2 or Marian over `slots` preallocated rows. Not safe for several threads."""

    def __init__(self, family: Gpt2 | Marian, *, slots: int) -> None:
        self.family = family
        self.cache = family.new_cache(slots)
        self.source: SlotCache | None = family.new_cache(slots) if isinstance(family, Marian) else None
        self.slots = slots
        self._sources = [Span(0, 0, 1)] * slots
        """Of each slot, the last token of its source; the beams of a row share one."""

    @property
    def reads_prompts(self) -> bool:
        """Whether a job's ids are what the decoder itself reads; Marian's are its encoder's."""
        return isinstance(self.family, Gpt2)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the caches."""
        return self.cache.memory_bytes + (self.source.memory_bytes if self.source else 0)

    def prompt_of(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """What the decoder reads first for a job with these ids."""
        return (self.family.start_id,) if isinstance(self.family, Marian) else ids

    def read_sources(self, sources: Sequence[tuple[Sequence[int], tuple[int, ...]]]) -> None:
        """Encode each (slots, ids) source of Marian and keep its keys and values in its slots. Nothing for GPT-2."""
        if not isinstance(self.family, Marian) or not sources:
            return
        assert self.source is not None, "Marian has a source cache. This is a bug."
        lengths = [len(ids) for _, ids in sources]
        device = self.family.device
        memory = self.family.encode(torch.tensor([i for _, ids in sources for i in ids], device=device), lengths)
        places = [Span(slots[0], 0, length) for (slots, _), length in zip(sources, lengths, strict=True)]
        self.family.remember(memory, StepTokens(places, device), self.source)
        for (slots, _), length in zip(sources, lengths, strict=True):
            for slot in slots:
                self._sources[slot] = Span(slots[0], length - 1, 1)

    def step(self, feeds: Sequence[Feed]) -> torch.Tensor:
        """One forward → scores (feeds, vocabulary) in fp32 after the last token of each feed."""
        return self.scores(self.forward(feeds), feeds)

    def forward(self, feeds: Sequence[Feed]) -> torch.Tensor:
        """Hidden states (tokens, width) after each fed token, in the feeds' order."""
        device = self.family.device
        tokens = StepTokens([Span(feed.slot, feed.start, len(feed.ids), feed.is_prompt) for feed in feeds], device)
        ids = torch.tensor([i for feed in feeds for i in feed.ids], device=device)
        if isinstance(self.family, Marian):
            assert self.source is not None, "Marian has a source cache. This is a bug."
            sources = StepTokens([self._sources[feed.slot] for feed in feeds for _ in feed.ids], device)
            return self.family.forward(ids, tokens, self.cache, self.source, sources)
        return self.family.forward(ids, tokens, self.cache)

    def scores(self, hidden: torch.Tensor, feeds: Sequence[Feed]) -> torch.Tensor:
        """Hidden states (tokens, width) of `feeds` → scores (feeds, vocabulary) in fp32 after each one's last token."""
        last = torch.tensor([len(feed.ids) for feed in feeds], device=hidden.device).cumsum(0) - 1
        return self.family.logits(hidden[last])
