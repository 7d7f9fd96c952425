"""Text classification: texts in, labels with scores out, over encode jobs."""

import asyncio
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import cast

from app.engine.client import EngineClient, LoadedModel
from app.engine.events import EncodedEvent, FailedEvent
from app.engine.jobs import EncodeJob
from app.engine.session import open_jobs
from app.errors import ContextLengthExceeded, EmptyInput
from app.text.tokenizer import Encoding, Tokenizer


class Truncate(StrEnum):
    """What to do with a text that is longer than the model reads. Never a silent cut: the answer says so."""

    ERROR = "error"
    LEFT = "left"
    RIGHT = "right"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedClassification:
    """Texts as the engine will read them: counted, and cut where the caller allowed it."""

    encodings: tuple[Encoding, ...]
    is_truncated: tuple[bool, ...]

    @property
    def input_tokens(self) -> int:
        """What will be charged: the tokens that are read."""
        return sum(len(encoding.ids) for encoding in self.encodings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A label's name and its probability, 0 to 1."""

    name: str
    score: float


def labels_of(folder: Path) -> tuple[str, ...]:
    """The checkpoint's own label names, in the order of its logits."""
    found = cast("dict[str, str]", json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"])
    return tuple(found[index] for index in sorted(found, key=int))


async def prepare(
    texts: Sequence[str], *, tokenizer: Tokenizer, loaded: LoadedModel, truncate: Truncate
) -> PreparedClassification:
    """Tokenise in a thread, count, and cut or refuse. Raises EmptyInput or ContextLengthExceeded naming the input."""
    for index, text in enumerate(texts):
        if not text.strip():
            raise EmptyInput(f"input {index} is empty; send at least one character of text", field=f"input.{index}")
    encodings = await asyncio.to_thread(lambda: [tokenizer.encode(text) for text in texts])
    kept: list[Encoding] = []
    for index, encoding in enumerate(encodings):
        if len(encoding.ids) > loaded.positions_max and truncate is Truncate.ERROR:
            raise ContextLengthExceeded(
                f"input {index} has {len(encoding.ids)} tokens and {loaded.id} reads {loaded.positions_max}; "
                "shorten it, or set truncate to left or right",
                field=f"input.{index}",
            )
        kept.append(cut(encoding, loaded.positions_max, truncate))
    is_truncated = tuple(a is not b for a, b in zip(encodings, kept, strict=True))
    return PreparedClassification(encodings=tuple(kept), is_truncated=is_truncated)


def cut(encoding: Encoding, tokens_max: int, truncate: Truncate) -> Encoding:
    """The same encoding when it fits, else one without its last (right) or first (left) words.

    The special token at either end ([CLS], [SEP]) stays.
    """
    if len(encoding.ids) <= tokens_max:
        return encoding
    first, last, middle = encoding.ids[:1], encoding.ids[-1:], encoding.ids[1:-1]
    room = tokens_max - 2
    kept = middle[:room] if truncate is Truncate.RIGHT else middle[len(middle) - room :]
    return Encoding((*first, *kept, *last), encoding.type_ids[:tokens_max])


async def classify(
    engine: EngineClient,
    prepared: PreparedClassification,
    *,
    request_id: str,
    model: str,
    labels: Sequence[str],
    tenant: str = "",
    weight: float = 1.0,
) -> list[list[Label]]:
    """Labels of each text, best first, in the order of the texts. Raises what the engine failed with."""
    jobs = [
        EncodeJob(
            id=f"{request_id}-{index}", model=model, ids=encoding.ids, type_ids=encoding.type_ids, tenant=tenant,
            weight=weight,
        )
        for index, encoding in enumerate(prepared.encodings)
    ]  # fmt: skip
    found: dict[str, list[Label]] = {}
    async with open_jobs(engine, jobs) as session:
        async for event in session.events():
            if isinstance(event, FailedEvent):
                raise event.error
            if isinstance(event, EncodedEvent):
                found[event.job_id] = ranked(event.scores[0], labels)
    return [found[job.id] for job in jobs]


def ranked(logits: Sequence[float], labels: Sequence[str]) -> list[Label]:
    """Softmax of the logits, best first; equal scores in the labels' order."""
    highest = max(logits)
    powers = [math.exp(logit - highest) for logit in logits]
    total = sum(powers)
    scored = [Label(name=name, score=power / total) for name, power in zip(labels, powers, strict=True)]
    return sorted(scored, key=lambda label: -label.score)
