"""A loaded decoder and its slots: feeds planned tokens of many rows in one forward and hands back their scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch

from app.engine.compute.cache import Array, SlotCache, Span, StepTokens
from app.engine.compute.choice import Scores
from app.engine.compute.cuda import HAS_KERNELS
from app.engine.compute.cuda.attention import fits_flash
from app.engine.compute.cuda.flights import Flight
from app.engine.compute.cuda.graphs import Place, StepGraphs
from app.engine.compute.cuda.prompts import PromptGraphs
from app.engine.compute.cuda.single import single_step
from app.engine.compute.families.gpt2 import Gpt2
from app.engine.compute.families.marian import Marian
from app.engine.compute.plain import sent
from app.engine.compute.sampling import Sampler

RUN_AHEAD = {"cuda"}
"""Kinds of devices that work by themselves at a step that was started. Tests add the CPU."""


@dataclass(frozen=True, slots=True)
class Feed:
    """Tokens of one slot to feed in this step."""

    slot: int
    start: int
    ids: tuple[int, ...]
    is_prompt: bool = False
    is_scored: bool = False
    """Whether the hidden states of all its tokens are read, not the last one's alone."""

    @property
    def wanted(self) -> int:
        """Of how many of its last tokens the hidden states are read."""
        return len(self.ids) if self.is_scored else 1


def wanted_of(feeds: Sequence[Feed]) -> Array | None:
    """Which of the tokens of these feeds are read, see StepTokens.wanted."""
    if all(feed.wanted == len(feed.ids) for feed in feeds):
        return None
    ends = accumulate(len(feed.ids) for feed in feeds)
    return np.concatenate([np.arange(end - feed.wanted, end) for feed, end in zip(feeds, ends, strict=True)])


class Decoder:
    """GPT-2 or Marian over `slots` preallocated rows. Not safe for several threads."""

    def __init__(self, family: Gpt2 | Marian, *, slots: int) -> None:
        self.family = family
        self.runs_ahead = family.device.type in RUN_AHEAD
        """Whether a step is only begun when `step` returns; who reads its scores waits for it."""
        held = slots + self.runs_ahead  # captured steps have a slot that nobody has
        self.cache = family.new_cache(held)
        self.source: SlotCache | None = family.new_cache(held) if isinstance(family, Marian) else None
        self.slots = slots
        self._graphs: StepGraphs | None = None
        self._prompts: PromptGraphs | None = None
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

    @property
    def flies(self) -> bool:
        """Whether several steps can be started at once."""
        return self._graphs is not None

    def capture(self) -> None:
        """Capture the steps in which every row feeds one token, and passes over prompts, where the device can."""
        if not self.runs_ahead or (self.family.device.type == "cuda" and not HAS_KERNELS):
            return
        for cache in (self.cache, self.source):
            if cache is not None:
                cache.arrays = []  # the CPU's kernels know no memory that stays where it is
        family, held = self.family, self.cache.keys
        self._graphs = StepGraphs(
            self.run, family.logits, slots=self.slots, positions=family.positions_max, device=family.device,
            single=single_step(family, self.cache) if isinstance(family, Gpt2) else None,
        )  # fmt: skip
        if isinstance(family, Gpt2) and (not held.is_cuda or fits_flash(held.dtype, held.shape[-1])):
            self._prompts = PromptGraphs(
                lambda ids, tokens: family.forward(ids, tokens, self.cache), family.logits, slots=self.slots,
                positions=family.positions_max, vocabulary=family.vocabulary, device=family.device,
            )  # fmt: skip

    def fly(
        self, feeds: Sequence[Feed], samplers: Sequence[Sampler], banned: Sequence[int], steps: int,
        first: Scores | None = None,
    ) -> Flight:  # fmt: skip
        """Start some steps, STEPS at most, of rows that feed a token each, of whose samplers all are blind.

        `first` are the scores of the last of the rows: what is drawn from these is told first, and is what they feed.
        `banned` ids are never drawn. While steps of the flight are unread nothing else may be run.
        """
        assert self._graphs is not None, "only captured steps fly. This is a bug."
        return self._graphs.fly([self.place_of(feed) for feed in feeds], samplers, banned, steps, first)

    def step(self, feeds: Sequence[Feed]) -> tuple[torch.Tensor, Scores]:
        """One forward → hidden states (wanted, width) in the feeds' order, and scores after each feed's last token.

        Hidden states are those that the feeds want, and mean nothing where no feed is scored. Both hold until the next
        step.
        """
        if self._graphs is not None and all(len(feed.ids) == 1 for feed in feeds):
            return self._graphs.step([self.place_of(feed) for feed in feeds])
        return self.read(feeds)

    def read(self, feeds: Sequence[Feed]) -> tuple[torch.Tensor, Scores]:
        """A step, of prompts or not, that a flight may follow at once."""
        if self._prompts is not None and all(feed.is_prompt for feed in feeds):
            spans = [Span(feed.slot, feed.start, len(feed.ids), is_prompt=True) for feed in feeds]
            found = self._prompts.read(spans, [feed.ids for feed in feeds])
            if found is not None:
                hidden, scores = found
                wanted = wanted_of(feeds) if any(feed.is_scored for feed in feeds) else None
                return hidden if wanted is None else hidden[sent(wanted, hidden.device)], scores
        hidden = self._forward(feeds)
        last = hidden
        if len(hidden) != len(feeds):
            last = hidden[sent(np.cumsum([feed.wanted for feed in feeds]) - 1, hidden.device)]
        if hidden.device.type == "cpu":
            return hidden, Scores.of(last, self.family)
        return hidden, Scores(self.family.logits(last))

    def place_of(self, feed: Feed) -> Place:
        """Where a captured step finds what a single token needs."""
        source = self._sources[feed.slot]
        return feed.ids[0], feed.slot, feed.start, source.slot, source.start

    def _forward(self, feeds: Sequence[Feed]) -> torch.Tensor:
        device = self.family.device
        spans = [Span(feed.slot, feed.start, len(feed.ids), feed.is_prompt) for feed in feeds]
        wanted = wanted_of(feeds)
        tokens = StepTokens(spans, device, wanted if self.reads_prompts else None)
        ids = sent(np.array([i for feed in feeds for i in feed.ids], np.int64), device)
        if self.reads_prompts:
            return self.run(ids, tokens, tokens)
        sources = StepTokens([self._sources[feed.slot] for feed in feeds for _ in feed.ids], device)
        hidden = self.run(ids, tokens, sources)
        return hidden if wanted is None else hidden[sent(wanted, device)]

    def run(self, ids: torch.Tensor, tokens: StepTokens, sources: StepTokens) -> torch.Tensor:
        """Packed ids (tokens,) with their places and those of their sources → hidden states (tokens, width).

        Of GPT-2 they are (wanted, width), see StepTokens.
        """
        if not isinstance(self.family, Marian):
            return self.family.forward(ids, tokens, self.cache)
        assert self.source is not None, "Marian has a source cache. This is a bug."
        return self.family.forward(ids, tokens, self.cache, self.source, sources)
