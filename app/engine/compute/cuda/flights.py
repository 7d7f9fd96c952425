"""Steps of the same rows, started one after the other without a look at what they find: each feeds, on the device,
what the one before drew. The host learns the tokens while the device is at later steps.

A row that ends meanwhile goes on in its own slot until the flight is over, and what it draws there means nothing.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from app.engine.compute.choice import POISONED, Draws, Scores, best_tokens
from app.engine.compute.plain import integers, sent
from app.engine.compute.sampling import Sampler

STEPS = 8
"""Started at once. New rows, and whoever cancels, wait so long."""
NOTHING = -2
"""In place of a token, where a row had none to tell in a step."""
STEPS_MAX = 256
"""Of a flight that goes on while nobody else wants the device."""


class Ring:
    """Where the ids of started steps come back to, in the order of the steps: pinned memory, an event for each."""

    def __init__(self, rows: int, device: torch.device) -> None:
        is_cuda = device.type == "cuda"
        self._ids = torch.zeros(2 * STEPS, rows, dtype=torch.long, pin_memory=is_cuda)
        self._events = [torch.cuda.Event() for _ in self._ids] if is_cuda else []

    def take(self, step: int, ids: torch.Tensor) -> None:
        """Ids (rows,) of a step, once the device has come there."""
        place = step % len(self._ids)
        self._ids[place, : len(ids)].copy_(ids, non_blocking=True)
        if self._events:
            self._events[place].record()

    def read(self, step: int, rows: int) -> list[int]:
        """What `take` was given; waits for the device."""
        place = step % len(self._ids)
        if self._events:
            self._events[place].synchronize()
        return integers(self._ids[place, :rows])


class Picks:
    """How the rows of a flight get their tokens: each its best, or one drawn by its own numbers."""

    def __init__(self, samplers: Sequence[Sampler], banned: Sequence[int], device: torch.device) -> None:
        places = [place for place, sampler in enumerate(samplers) if sampler.search.temperature > 0]
        self.rows = len(samplers)
        self._sampled = [samplers[place] for place in places]
        self._places = sent(np.array(places, np.int64), device)
        self._banned = list(banned)
        self._device = device
        self._draws: Draws | None = None
        self._uniforms: torch.Tensor | None = None

    def prepare(self, steps: int) -> None:
        """The numbers for so many steps."""
        if self._sampled:
            numbers = np.array([sampler.uniforms(steps) for sampler in self._sampled])
            self._uniforms = sent(numbers.T.copy(), self._device)

    def of(self, scores: Scores, step: int) -> torch.Tensor | None:
        """The ids (rows,) of the step, of those prepared for; None where they are the best that it has found."""
        if not (self._sampled or self._banned):
            return None
        values = scores.values
        if self._banned:
            values[:, self._banned] = -torch.inf
        best = best_tokens(values) if self._banned or scores.best is None else scores.best.clone()
        if self._uniforms is not None:
            self._draws = self._draws or Draws([one.search for one in self._sampled], values.shape[1], values.device)
            drawn = self._draws.of(values[self._places], self._uniforms[step])
            found = best[self._places]
            best[self._places] = torch.where(found == POISONED, POISONED, drawn)
        return best

    def first(self, scores: Scores) -> torch.Tensor:
        """The ids (rows,) of a single step."""
        self.prepare(1)
        picked = self.of(scores, 0)
        if picked is not None:
            return picked
        return best_tokens(scores.values) if scores.best is None else scores.best


class Flight:
    """Iterating gives each step's tokens in turn, POISONED for a row that failed; waits for them."""

    def __init__(
        self, step: Callable[[], Scores], feed: Callable[[torch.Tensor], None], picks: Picks, ring: Ring,
        steps: int, first: torch.Tensor | None = None,
    ) -> None:  # fmt: skip
        """`first` (rows,) is told before the steps' tokens."""
        self._step = step
        self._feed = feed
        self._picks = picks
        self._ring = ring
        self._started = 0
        self._read = 0
        if first is not None:
            ring.take(0, first)
            self._started = 1
        self.go_on(steps)

    @property
    def left(self) -> int:
        """Steps that were started and not read."""
        return self._started - self._read

    @property
    def is_long(self) -> bool:
        """Whether it must not go on."""
        return self._started >= STEPS_MAX

    def go_on(self, steps: int) -> None:
        """Start so many more, STEPS at most, of the same rows. Of those before at most one may be unread."""
        self._picks.prepare(steps)
        for number in range(steps):
            scores = self._step()
            assert scores.best is not None, "captured steps look for the best. This is a bug."
            picked = self._picks.of(scores, number)
            if picked is not None:
                self._feed(picked)
            self._ring.take(self._started, scores.best if picked is None else picked)
            self._started += 1

    def __iter__(self) -> Iterator[list[int]]:
        while self.left:
            ids = self._ring.read(self._read, self._picks.rows)
            self._read += 1
            yield ids
