"""Token classification: texts in, labelled stretches out, each with its place in the caller's text."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from app.engine.session import JobSession
from app.errors import InvalidRequest
from app.registry.model import TaskName
from app.registry.residency import Resident
from app.tasks.classification import softmax
from app.tasks.entities import Aggregation, Entity, Piece, entities_of, without_overlaps
from app.tasks.task import Caller, Prepared, encode_jobs, encoded, readable_tokens, refuse_empty, refuse_many, too_long
from app.text.tokenizer import Encoding, Tokenizer
from app.text.truncation import Truncate, cut

OUTSIDE = ("O",)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggingRequest:
    """Texts, and how their tokens' labels become entities."""

    texts: tuple[str, ...]
    aggregation: Aggregation = Aggregation.NONE
    ignored: tuple[str, ...] = OUTSIDE
    """Labels that are not told."""
    stride: int | None = None
    """A text that is too long is read in windows that share so many tokens; None reads one, cut as `truncate` says."""
    truncate: Truncate = Truncate.ERROR


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A window of a text: its tokens, without the special ones, and their places."""

    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]


@dataclass(slots=True, kw_only=True)
class PreparedTagging(Prepared):
    """Encode jobs, one a window."""

    request: TaggingRequest
    parts: tuple[tuple[Part, ...], ...]
    """Of each text."""
    labels: tuple[str, ...]
    tokenizer: Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagged:
    """One text's entities, in their order."""

    index: int
    entities: tuple[Entity, ...]
    is_truncated: bool


class Tagging:
    """See Task."""

    name = TaskName.TAGGING

    async def prepare(self, request: TaggingRequest, resident: Resident, caller: Caller) -> PreparedTagging:
        """See Task.prepare."""
        refuse_empty(request.texts, "input", texts_max=resident.model.limits.batch_inputs_max)
        room = readable_tokens(resident) - 2
        if request.stride is not None and not 0 <= request.stride < room:
            raise InvalidRequest(f"stride must lie between 0 and {room - 1}", field="stride")
        if request.stride is not None and request.aggregation is Aggregation.NONE:
            raise InvalidRequest("stride needs an aggregation_strategy other than none", field="stride")
        tokenizer = resident.tokenizer
        found = await asyncio.to_thread(
            lambda: [self._parts(text, index, request, room, resident) for index, text in enumerate(request.texts)]
        )
        refuse_many(sum(len(parts) for parts, _ in found), "stride")
        encodings = [
            Encoding((tokenizer.cls_id, *part.ids, tokenizer.sep_id), (0,) * (len(part.ids) + 2))
            for parts, _ in found
            for part in parts
        ]
        jobs = encode_jobs(encodings, resident, caller)
        return PreparedTagging(
            jobs=jobs, input_tokens=sum(len(job.ids) for job in jobs), characters=sum(map(len, request.texts)),
            request=request, parts=tuple(parts for parts, _ in found), labels=resident.labels, tokenizer=tokenizer,
            is_truncated=tuple(is_truncated for _, is_truncated in found),
        )  # fmt: skip

    def _parts(
        self, text: str, index: int, request: TaggingRequest, room: int, resident: Resident
    ) -> tuple[tuple[Part, ...], bool]:
        ids, offsets = resident.tokenizer.encode_plain(text)
        if len(ids) <= room:
            return (Part(ids=ids, offsets=offsets),), False
        if request.stride is not None:
            step = room - request.stride
            starts = [start for start in range(0, len(ids), step) if start == 0 or start + request.stride < len(ids)]
            pieces = (slice(start, start + room) for start in starts)
            return tuple(Part(ids=ids[piece], offsets=offsets[piece]) for piece in pieces), False
        if request.truncate is Truncate.ERROR:
            raise too_long("input", index, len(ids) + 2, room + 2, resident)
        kept = cut(range(len(ids)), room, request.truncate)
        piece = slice(kept[0], kept[-1] + 1)
        return (Part(ids=ids[piece], offsets=offsets[piece]),), True

    async def events(self, prepared: PreparedTagging, session: JobSession) -> AsyncIterator[Tagged]:
        """See Task.events."""
        scores = {event.job_id: event.scores async for event in encoded(session)}
        jobs, request = iter(prepared.jobs), prepared.request
        for index, parts in enumerate(prepared.parts):
            found: list[Entity] = []
            for part in parts:
                rows = scores[next(jobs).id][1:-1]
                pieces = pieces_of(request.texts[index], part, rows, prepared.tokenizer)
                entities = entities_of(pieces, request.aggregation, prepared.labels, prepared.tokenizer.joined)
                found += [entity for entity in entities if entity.label not in request.ignored]
            if len(parts) > 1:
                found = without_overlaps(found)
            yield Tagged(index=index, entities=tuple(found), is_truncated=prepared.is_truncated[index])


def pieces_of(text: str, part: Part, rows: tuple[tuple[float, ...], ...], tokenizer: Tokenizer) -> list[Piece]:
    """Each token with its labels' probabilities. A piece that is not as long as its text carries a mark: it goes on."""
    pieces: list[Piece] = []
    for place, (token_id, (start, end), logits) in enumerate(zip(part.ids, part.offsets, rows, strict=True)):
        shown, is_unknown = text[start:end], token_id == tokenizer.unknown_id
        word = shown if is_unknown else tokenizer.piece(token_id)
        pieces.append(
            Piece(
                word=word, start=start, end=end, index=place + 1, scores=softmax(logits),
                is_continued=not is_unknown and len(word) != len(shown),
            )
        )  # fmt: skip
    return pieces
