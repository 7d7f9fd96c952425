"""Fill-mask: the most probable tokens for each hidden place of a text, and the text with each of them."""

import asyncio
import dataclasses
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass

from app.engine.session import JobSession
from app.errors import InvalidRequest, TaskMismatch
from app.registry.model import TaskName
from app.registry.residency import Resident
from app.tasks.task import Caller, Prepared, encode_jobs, encoded, places, readable_tokens, refuse_empty, too_long
from app.text.pairs import single
from app.text.tokenizer import Encoding, Tokenizer
from app.text.truncation import Truncate


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmaskingRequest:
    """Texts that hold the model's mask token."""

    texts: tuple[str, ...]
    guesses: int = 5
    """So many for each place."""
    targets: tuple[str, ...] = ()
    """If not empty, only these are guessed; of one that is no token the first piece is taken."""
    truncate: Truncate = Truncate.ERROR


@dataclass(slots=True, kw_only=True)
class PreparedUnmasking(Prepared):
    """Encode jobs, one a text."""

    tokenizer: Tokenizer
    replaced: tuple[tuple[str, str], ...]
    """(target, the piece that stands for it) of targets that are no tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """A token for a place, its probability, and the text with it."""

    token_id: int
    token: str
    score: float
    sequence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmasked:
    """One text's guesses, place by place, best first."""

    index: int
    places: tuple[tuple[Guess, ...], ...]
    is_truncated: bool


class Unmasking:
    """See Task."""

    name = TaskName.UNMASKING

    async def prepare(self, request: UnmaskingRequest, resident: Resident, caller: Caller) -> PreparedUnmasking:
        """See Task.prepare."""
        refuse_empty(request.texts, "input", texts_max=resident.model.limits.batch_inputs_max)
        tokenizer = resident.tokenizer
        mask_id = tokenizer.mask_id
        if mask_id is None:
            raise TaskMismatch(f"The tokenizer of {resident.model.id} has no mask token.", field="model")
        encodings = await asyncio.to_thread(lambda: [tokenizer.encode(text) for text in request.texts])
        tokens_max = readable_tokens(resident)
        kept: list[Encoding] = []
        for index, encoding in enumerate(encodings):
            if len(encoding.ids) > tokens_max and request.truncate is Truncate.ERROR:
                raise too_long("input", index, len(encoding.ids), tokens_max, resident)
            kept.append(single(encoding, tokens_max, request.truncate))
            if mask_id not in kept[-1].ids:
                raise InvalidRequest(
                    f"input {index} has no mask token ({tokenizer.piece(mask_id)}) in what the model reads of it; put "
                    "one where a word is to be guessed",
                    field=f"input.{index}",
                )
        targets, replaced = await asyncio.to_thread(targets_of, request.targets, tokenizer)
        jobs = tuple(
            dataclasses.replace(
                job, guesses=request.guesses, targets=targets,
                places=tuple(place for place, token in enumerate(job.ids) if token == mask_id),
            )
            for job in encode_jobs(kept, resident, caller)
        )  # fmt: skip
        return PreparedUnmasking(
            jobs=jobs, input_tokens=sum(len(job.ids) for job in jobs), characters=sum(map(len, request.texts)),
            tokenizer=tokenizer, replaced=replaced,
            is_truncated=tuple(a is not b for a, b in zip(encodings, kept, strict=True)),
        )  # fmt: skip

    async def events(self, prepared: PreparedUnmasking, session: JobSession) -> AsyncIterator[Unmasked]:
        """See Task.events."""
        place_of = places(prepared.jobs)
        mask_id = prepared.tokenizer.mask_id
        async for event in encoded(session):
            index = place_of[event.job_id]
            ids = prepared.jobs[index].ids
            hidden = [place for place, token in enumerate(ids) if token == mask_id]
            found = tuple(
                tuple(guess(ids, place, token, logprob, prepared.tokenizer, len(hidden)) for token, logprob in top)
                for place, top in zip(hidden, event.top, strict=True)
            )
            yield Unmasked(index=index, places=found, is_truncated=prepared.is_truncated[index])


def targets_of(targets: tuple[str, ...], tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[tuple[str, str], ...]]:
    """Their ids, each once, and what stands for those that are no tokens. Raises InvalidRequest if none is left."""
    ids: list[int] = []
    replaced: list[tuple[str, str]] = []
    for target in targets:
        found = tokenizer.id_of(target)
        if found is None:
            pieces, _ = tokenizer.encode_plain(target)
            if not pieces:
                continue
            found = pieces[0]
            replaced.append((target, tokenizer.piece(found)))
        ids.append(found)
    if targets and not ids:
        raise InvalidRequest("none of the targets holds a token of this model", field="targets")
    return tuple(dict.fromkeys(ids)), tuple(replaced)


def guess(ids: tuple[int, ...], place: int, token_id: int, logprob: float, tokenizer: Tokenizer, hidden: int) -> Guess:
    """A token in its place. Where other places stay hidden, special tokens are shown, or the text would lack them."""
    sequence = tokenizer.decode((*ids[:place], token_id, *ids[place + 1 :]), keeps_special=hidden > 1)
    return Guess(token_id=token_id, token=tokenizer.token(token_id), score=math.exp(logprob), sequence=sequence)
