"""The work as plain data, made from a seed: the same requests for every engine, to the token. Runs nothing."""

import dataclasses
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

SEED = 20_240_501
LOWEST_ID, HIGHEST_ID = 1_000, 20_000
"""Token ids are drawn from here: plain tokens in every vocabulary at the published sizes."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: what it sends and how many tokens it must receive."""

    ids: tuple[int, ...]
    output_tokens: int = 0
    arrival_s: float = 0.0
    """When it comes, at one request a second; a rate divides it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Requests for one model. All wait from the start, unless `rate` spreads them."""

    name: str
    title: str
    model: Literal["gpt2", "bert", "marian"]
    asks: tuple[Ask, ...]
    at_once: int
    """At most so many are in progress; a static batch has this size."""
    beams: int = 1
    order: Literal["arrival", "length"] = "arrival"
    """How an engine of static batches may put them together."""
    rate: float | None = None
    """Requests a second of a Poisson process; None sends all at once."""
    has_first: bool = False
    """Whether a second pass of one token each is timed, which takes the prompt out of the time a token."""

    @property
    def input_tokens(self) -> int:
        """Tokens that are read."""
        return sum(len(ask.ids) for ask in self.asks)

    @property
    def output_tokens(self) -> int:
        """Tokens that must be produced."""
        return sum(ask.output_tokens for ask in self.asks)

    @property
    def is_encoding(self) -> bool:
        """Whether requests are read once and nothing is generated."""
        return self.output_tokens == 0

    def batches(self) -> list[list[int]]:
        """Static batches of indices, for engines that cannot let requests join."""
        places = list(range(len(self.asks)))
        if self.order == "length":
            places.sort(key=lambda place: len(self.asks[place].ids))
        return [places[start : start + self.at_once] for start in range(0, len(places), self.at_once)]

    def at_rate(self, rate: float | None) -> "Work":
        """The same requests, arriving at `rate` a second."""
        return dataclasses.replace(self, rate=rate)

    def warm_up(self) -> "Work":
        """As much of it as may be in progress at once: what an engine compiles or allocates, it does here."""
        return dataclasses.replace(self, asks=self.asks[: max(self.at_once, 2)], rate=None)

    def first_only(self) -> "Work":
        """The same prompts, one token each."""
        return dataclasses.replace(self, asks=tuple(dataclasses.replace(ask, output_tokens=1) for ask in self.asks))


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of it: `full` is the published figure, `quick` shows that everything runs, `tiny` fits tiny models."""

    tokens: float = 1.0
    requests: float = 1.0
    lowest_id: int = LOWEST_ID
    highest_id: int = HIGHEST_ID

    def length(self, tokens: int) -> int:
        return max(2, round(tokens * self.tokens))

    def count(self, requests: int) -> int:
        return max(2, round(requests * self.requests)) if requests > 1 else 1


FULL = Scale()
QUICK = Scale(tokens=0.25, requests=0.5)
TINY = Scale(tokens=0.08, requests=0.125, lowest_id=10, highest_id=60)
SCALES = {"full": FULL, "quick": QUICK, "tiny": TINY}


class Draw:
    """A seeded source of requests; each work has its own, so that adding one never changes another."""

    def __init__(self, name: str, scale: Scale) -> None:
        self._random = random.Random(f"{SEED} {name}")
        self._scale = scale

    def ids(self, count: int) -> tuple[int, ...]:
        return tuple(self._random.randint(self._scale.lowest_id, self._scale.highest_id) for _ in range(count))

    def equal(self, requests: int, *, tokens: int, output_tokens: int = 0) -> tuple[Ask, ...]:
        """Requests of one length."""
        length = self._scale.length(tokens)
        produced = self._scale.length(output_tokens) if output_tokens else 0
        return tuple(Ask(self.ids(length), produced) for _ in range(self._scale.count(requests)))

    def mixed(self, requests: int, *, tokens: tuple[int, int], output: tuple[int, int] = (0, 0)) -> tuple[Ask, ...]:
        """Requests of lengths drawn evenly from both ranges, with exponential pauses of one second on average."""
        count = self._scale.count(requests)
        arrivals = accumulate(self._random.expovariate(1.0) for _ in range(count))
        return tuple(
            Ask(
                self.ids(self._scale.length(self._random.randint(*tokens))),
                self._scale.length(self._random.randint(*output)) if output[1] else 0,
                arrival,
            )
            for arrival in arrivals
        )


def equal_streams(count: int) -> Callable[[Draw, Scale], Work]:
    """`count` equal streams of GPT-2, all at once."""

    def make(draw: Draw, scale: Scale) -> Work:
        return Work(
            name=f"gpt2-{count}", title=f"GPT-2 124M, {count} equal streams, 128 in / 64 out", model="gpt2",
            asks=draw.equal(count, tokens=128, output_tokens=64), at_once=count,
        )  # fmt: skip

    return make


def one_stream(draw: Draw, scale: Scale) -> Work:
    return Work(
        name="gpt2-1", title="GPT-2 124M, one stream, 128 in / 64 out", model="gpt2",
        asks=draw.equal(2, tokens=128, output_tokens=64), at_once=1, has_first=True,
    )  # fmt: skip


def queue(draw: Draw, scale: Scale) -> Work:
    return Work(
        name="gpt2-queue", title="GPT-2 124M, a queue of 96 requests, 16…512 in, 8…256 out, 32 at a time",
        model="gpt2", asks=draw.mixed(96, tokens=(16, 512), output=(8, 256)), at_once=32,
    )  # fmt: skip


def poisson(draw: Draw, scale: Scale) -> Work:
    return Work(
        name="gpt2-poisson", title="GPT-2 124M, 64 requests by Poisson, 16…256 in, 8…96 out", model="gpt2",
        asks=draw.mixed(64, tokens=(16, 256), output=(8, 96)), at_once=32,
    )  # fmt: skip


def bert_mixed(draw: Draw, scale: Scale) -> Work:
    return Work(
        name="bert-64", title="BERT-base, 64 requests of 16…256 tokens at once", model="bert",
        asks=draw.mixed(64, tokens=(16, 256)), at_once=16,
    )  # fmt: skip


def bert_sorted(draw: Draw, scale: Scale) -> Work:
    title = "the same, sorted by length into batches of 16"
    return dataclasses.replace(bert_mixed(Draw("bert-64", scale), scale), name="bert-64-sorted", title=title,
                               order="length")  # fmt: skip


def bert_alone(draw: Draw, scale: Scale) -> Work:
    title = "the same, one by one"
    return dataclasses.replace(bert_mixed(Draw("bert-64", scale), scale), name="bert-64-alone", title=title,
                               at_once=1)  # fmt: skip


def bert_equal(draw: Draw, scale: Scale) -> Work:
    return Work(
        name="bert-8", title="BERT-base, 8 requests of 128 tokens", model="bert", asks=draw.equal(8, tokens=128),
        at_once=8,
    )  # fmt: skip


def marian_greedy(draw: Draw, scale: Scale) -> Work:
    return Work(
        name="marian-greedy", title="Marian (opus-mt size), greedy × 32, 25 in / 30 out", model="marian",
        asks=draw.equal(32, tokens=25, output_tokens=30), at_once=32,
    )  # fmt: skip


def marian_beam(draw: Draw, scale: Scale) -> Work:
    return Work(
        name="marian-beam", title="Marian (opus-mt size), beam 4 × 8, 25 in / 30 out", model="marian",
        asks=draw.equal(8, tokens=25, output_tokens=30), at_once=8, beams=4,
    )  # fmt: skip


CONCURRENCIES = (1, 2, 4, 8, 16, 32)
MAKERS: dict[str, Callable[[Draw, Scale], Work]] = {
    "gpt2-1": one_stream,
    **{f"gpt2-{count}": equal_streams(count) for count in CONCURRENCIES[1:]},
    "gpt2-queue": queue,
    "gpt2-poisson": poisson,
    "bert-64": bert_mixed,
    "bert-64-sorted": bert_sorted,
    "bert-64-alone": bert_alone,
    "bert-8": bert_equal,
    "marian-greedy": marian_greedy,
    "marian-beam": marian_beam,
}


def make_work(name: str, scale: str = "full") -> Work:
    """The work called `name`; the same value at every call."""
    found = SCALES[scale]
    return MAKERS[name](Draw(name, found), found)


def chosen(only: Sequence[str]) -> list[str]:
    """Names that equal or begin with one of `only`, in the order of MAKERS; all of them when `only` is empty."""
    wanted = [name for name in MAKERS if not only or any(name == o or name.startswith(f"{o}-") for o in only)]
    unknown = [o for o in only if not any(name == o or name.startswith(f"{o}-") for name in MAKERS)]
    if unknown:
        raise ValueError(f"there is no work {unknown[0]!r}; there are {', '.join(MAKERS)}")
    return wanted
