"""Translation: texts are split into sentences, each is a beam-search job, and the answers are put together again."""

import asyncio
import itertools
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass

from app.engine.events import FinishedEvent, TokenEvent
from app.engine.jobs import BeamSearch, DecodeJob
from app.engine.session import JobSession
from app.errors import ContextLengthExceeded
from app.registry.model import TaskName
from app.registry.residency import Resident
from app.tasks.task import Caller, Prepared, events_of, places, refuse_cancelled, refuse_empty
from app.text import sentences
from app.text.sentences import Sentence, Split
from app.text.tokenizer import Tokenizer
from app.text.truncation import Truncate, cut

OUTPUT_FACTOR = 2
OUTPUT_SPARE = 16
"""A translation may take twice its source's tokens and these more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TranslationRequest:
    """Texts to translate."""

    texts: tuple[str, ...]
    beams: int = 4
    length_penalty: float = 1.0
    split: Split = Split.ALL
    truncate: Truncate = Truncate.ERROR


@dataclass(slots=True, kw_only=True)
class PreparedTranslation(Prepared):
    """Decode jobs, one a sentence, and how they belong together."""

    tokenizer: Tokenizer
    leads: tuple[str, ...]
    parts: tuple[tuple[Sentence, ...], ...]
    """Of each text: its sentences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Translated:
    """One text's translation."""

    index: int
    text: str
    is_truncated: bool


class Translation:
    """See Task."""

    name = TaskName.TRANSLATION

    async def prepare(self, request: TranslationRequest, resident: Resident, caller: Caller) -> PreparedTranslation:
        """See Task.prepare."""
        refuse_empty(request.texts, "input", texts_max=resident.model.limits.batch_inputs_max)
        split = [sentences.split(text, request.split) for text in request.texts]
        tokenizer = resident.tokenizer
        encodings = await asyncio.to_thread(
            lambda: [[tokenizer.encode(part.text).ids for part in parts] for _, parts in split]
        )
        positions_max = resident.loaded.positions_max
        tokens_max = int(min(positions_max, resident.model.limits.input_tokens_max or math.inf))
        jobs: list[DecodeJob] = []
        is_truncated = [False] * len(split)
        for index, rows in enumerate(encodings):
            for number, ids in enumerate(rows):
                kept = ids
                if len(ids) > tokens_max:
                    if request.truncate is Truncate.ERROR:
                        raise ContextLengthExceeded(
                            f"sentence {number} of input {index} has {len(ids)} tokens and {resident.model.id} reads "
                            f"{tokens_max}; split it, or set truncate to left or right",
                            field=f"input.{index}",
                        )
                    kept, is_truncated[index] = (*cut(ids[:-1], tokens_max - 1, request.truncate), ids[-1]), True
                jobs.append(
                    DecodeJob(
                        id=f"{caller.request_id}-{len(jobs)}", model=resident.model.id, ids=kept,
                        max_new_tokens=min(positions_max - 1, OUTPUT_FACTOR * len(kept) + OUTPUT_SPARE),
                        search=BeamSearch(beams=request.beams, length_penalty=request.length_penalty),
                        stop_ids=frozenset({ids[-1]}), tenant=caller.tenant, weight=caller.weight,
                    )
                )  # fmt: skip
        return PreparedTranslation(
            jobs=tuple(jobs), input_tokens=sum(len(job.ids) for job in jobs), tokenizer=tokenizer,
            output_tokens_max=sum(job.max_new_tokens for job in jobs), characters=sum(map(len, request.texts)),
            leads=tuple(lead for lead, _ in split), parts=tuple(tuple(parts) for _, parts in split),
            is_truncated=tuple(is_truncated),
        )  # fmt: skip

    async def events(self, prepared: PreparedTranslation, session: JobSession) -> AsyncIterator[Translated]:
        """See Task.events. A text's translation comes when its last sentence is done."""
        place_of = places(prepared.jobs)
        owners = [index for index, parts in enumerate(prepared.parts) for _ in parts]
        firsts = [0, *itertools.accumulate(len(parts) for parts in prepared.parts)]
        missing = [len(parts) for parts in prepared.parts]
        made = [""] * len(prepared.jobs)
        async for event in events_of(session):
            refuse_cancelled(event)
            if isinstance(event, TokenEvent):
                prepared.output_tokens[event.job_id] = len(event.ids)
                made[place_of[event.job_id]] = prepared.tokenizer.decode(event.ids)
            elif isinstance(event, FinishedEvent):
                index = owners[place_of[event.job_id]]
                missing[index] -= 1
                if not missing[index]:
                    parts = prepared.parts[index]
                    texts = made[firsts[index] : firsts[index + 1]]
                    whole = [Sentence(text, part.gap) for text, part in zip(texts, parts, strict=True)]
                    text = sentences.join(prepared.leads[index], whole)
                    yield Translated(index=index, text=text, is_truncated=prepared.is_truncated[index])
