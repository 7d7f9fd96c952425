"""Feature extraction: texts in, one vector each out, made as the checkpoint's sentence-transformers files say."""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from app.engine.session import JobSession
from app.errors import EmptyInput, InvalidRequest
from app.registry.model import TaskName
from app.registry.residency import Resident
from app.registry.sentence_vectors import VectorRules
from app.tasks.task import Caller, Prepared, encode_jobs, encoded, places, readable_tokens, refuse_empty, too_long
from app.text.pairs import single
from app.text.tokenizer import Encoding
from app.text.truncation import Truncate, cut

Text = str | tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRequest:
    """Texts, or their token ids, which are read as they are."""

    texts: tuple[Text, ...]
    dimensions: int | None = None
    """Keep so many of the vector's first numbers (Matryoshka models are trained for it); None keeps all."""
    is_normalised: bool | None = None
    """Whether each vector is brought to length 1; None does as the model's files say."""
    prompt_name: str | None = None
    """Which of the model's prompts stands before each text; None takes the model's default."""
    truncate: Truncate = Truncate.ERROR


@dataclass(slots=True, kw_only=True)
class PreparedEmbedding(Prepared):
    """Encode jobs, one a text."""

    dimensions: int
    is_normalised: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """One text's vector."""

    index: int
    vector: tuple[float, ...]
    is_truncated: bool


class Embedding:
    """See Task."""

    name = TaskName.EMBEDDING

    async def prepare(self, request: EmbeddingRequest, resident: Resident, caller: Caller) -> PreparedEmbedding:
        """See Task.prepare."""
        rules = resident.vectors
        assert rules is not None, "a model that makes vectors has their rules. This is a bug."
        dimensions = rules.dimensions if request.dimensions is None else request.dimensions
        if not 1 <= dimensions <= rules.dimensions:
            raise InvalidRequest(
                f"dimensions is {dimensions}; the vectors of {resident.model.id} have {rules.dimensions}",
                field="dimensions",
            )
        refuse_empty(
            tuple(text if isinstance(text, str) else "ids" for text in request.texts), "input",
            texts_max=resident.model.limits.batch_inputs_max,
        )  # fmt: skip
        prompt = prompt_of(request, rules, resident)
        encodings = await asyncio.to_thread(
            lambda: [read(text, prompt, rules, index, resident) for index, text in enumerate(request.texts)]
        )
        tokens_max = readable_tokens(resident)
        for index, encoding in enumerate(encodings):
            if len(encoding.ids) > tokens_max and request.truncate is Truncate.ERROR:
                raise too_long("input", index, len(encoding.ids), tokens_max, resident)
        kept = [
            single(encoding, tokens_max, request.truncate) if isinstance(text, str)
            else Encoding(cut(encoding.ids, tokens_max, request.truncate), encoding.type_ids[:tokens_max])
            for text, encoding in zip(request.texts, encodings, strict=True)
        ]  # fmt: skip
        jobs = encode_jobs(kept, resident, caller)
        return PreparedEmbedding(
            jobs=jobs, input_tokens=sum(len(job.ids) for job in jobs), dimensions=dimensions,
            characters=sum(len(text) for text in request.texts if isinstance(text, str)),
            is_truncated=tuple(len(a.ids) > len(b.ids) for a, b in zip(encodings, kept, strict=True)),
            is_normalised=rules.is_normalised if request.is_normalised is None else request.is_normalised,
        )  # fmt: skip

    async def events(self, prepared: PreparedEmbedding, session: JobSession) -> AsyncIterator[Embedded]:
        """See Task.events."""
        place_of = places(prepared.jobs)
        async for event in encoded(session):
            index = place_of[event.job_id]
            vector = event.scores[0][: prepared.dimensions]
            if prepared.is_normalised:
                vector = normalised(vector)
            yield Embedded(index=index, vector=vector, is_truncated=prepared.is_truncated[index])


def prompt_of(request: EmbeddingRequest, rules: VectorRules, resident: Resident) -> str:
    """What stands before each text. Raises InvalidRequest for a prompt that the model does not have."""
    name = rules.default_prompt if request.prompt_name is None else request.prompt_name
    if name is None:
        return ""
    prompts = dict(rules.prompts)
    if name not in prompts:
        known = f"it has {', '.join(prompts)}" if prompts else "it has none"
        raise InvalidRequest(f"{resident.model.id} has no prompt {name[:100]!r}; {known}", field="prompt_name")
    return prompts[name]


def read(text: Text, prompt: str, rules: VectorRules, index: int, resident: Resident) -> Encoding:
    """A text's tokens, or the ids themselves. Raises EmptyInput or InvalidRequest for ids that cannot be."""
    if isinstance(text, str):
        whole = prompt + text
        return resident.tokenizer.encode(whole.lower() if rules.is_lower_cased else whole)
    if not text:
        raise EmptyInput(f"input {index} holds no token; send at least one", field=f"input.{index}")
    worst = max(text, key=lambda token: (token < 0, token))
    if not 0 <= worst < resident.tokenizer.size:
        raise InvalidRequest(
            f"input {index} holds the token id {worst}; ids go from 0 to {resident.tokenizer.size - 1}. "
            "Send texts, or ids of this model's own tokenizer",
            field=f"input.{index}",
        )
    return Encoding(text, (0,) * len(text))


def normalised(vector: Sequence[float]) -> tuple[float, ...]:
    """The same direction, of length 1; a vector of zeros stays."""
    length = math.hypot(*vector) or 1.0
    return tuple(number / length for number in vector)


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Of the angle between two vectors: 1 for the same direction."""
    return sum(a * b for a, b in zip(normalised(one), normalised(other), strict=True))
