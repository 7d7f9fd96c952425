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
    alternatives: int = 0
    """Give so many other translations of each text, if there are: the search's next hypotheses. They are paid too."""
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
    alternatives: tuple[str, ...] = ()
    """Others, best first, that differ from it and from each other."""


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
        returned = 1 + request.alternatives
        search = BeamSearch(
            beams=max(request.beams, returned), length_penalty=request.length_penalty, returned=returned
        )
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
                        search=search,
                        stop_ids=frozenset({ids[-1]}), tenant=caller.tenant, weight=caller.weight,
                    )
                )  # fmt: skip
        return PreparedTranslation(
            jobs=tuple(jobs), input_tokens=sum(len(job.ids) for job in jobs), tokenizer=tokenizer,
            output_tokens_max=returned * sum(job.max_new_tokens for job in jobs),
            characters=sum(map(len, request.texts)), leads=tuple(lead for lead, _ in split),
            parts=tuple(tuple(parts) for _, parts in split), is_truncated=tuple(is_truncated),
        )  # fmt: skip

    async def events(self, prepared: PreparedTranslation, session: JobSession) -> AsyncIterator[Translated]:
        """See Task.events. A text's translation comes when its last sentence is done."""
        place_of = places(prepared.jobs)
        owners = [index for index, parts in enumerate(prepared.parts) for _ in parts]
        firsts = [0, *itertools.accumulate(len(parts) for parts in prepared.parts)]
        missing = [len(parts) for parts in prepared.parts]
        made: list[list[tuple[int, ...]]] = [[] for _ in prepared.jobs]
        async for event in events_of(session):
            refuse_cancelled(event)
            place = place_of[event.job_id]
            if isinstance(event, TokenEvent):
                made[place].append(event.ids)
            elif isinstance(event, FinishedEvent):
                made[place] += event.others
                index = owners[place]
                missing[index] -= 1
                if not missing[index]:
                    yield put_together(prepared, index, made[firsts[index] : firsts[index + 1]], firsts[index])


def put_together(
    prepared: PreparedTranslation, index: int, found: list[list[tuple[int, ...]]], first: int
) -> Translated:
    """A text from the hypotheses of its sentences: the best of each, then the second of each, and so on.

    Those that are given are counted, of equal texts the first.
    """
    texts: dict[str, None] = {}
    for hypotheses in zip(*found, strict=False):
        whole = [
            Sentence(prepared.tokenizer.decode(ids), part.gap)
            for ids, part in zip(hypotheses, prepared.parts[index], strict=True)
        ]
        text = sentences.join(prepared.leads[index], whole)
        if text not in texts:
            texts[text] = None
            for place, ids in enumerate(hypotheses, first):
                job_id = prepared.jobs[place].id
                prepared.output_tokens[job_id] = prepared.output_tokens.get(job_id, 0) + len(ids)
    best, *others = texts
    return Translated(index=index, text=best, is_truncated=prepared.is_truncated[index], alternatives=tuple(others))
