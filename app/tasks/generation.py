"""Text generation: prompts in, text pieces as they come, over decode jobs; stop strings end a row at once."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from app.engine.events import FinishedEvent, FinishReason, PromptEvent, TokenEvent
from app.engine.jobs import BeamSearch, DecodeJob, Sampling
from app.engine.session import JobSession
from app.errors import ContextLengthExceeded, EmptyInput, InvalidRequest
from app.registry.model import TaskName
from app.registry.residency import Resident
from app.tasks.prompts import Prompt, constrained, ids_of, refuse_strangers
from app.tasks.task import Caller, Prepared, events_of, places
from app.text.detokenizer import Detokenizer
from app.text.stops import StopStrings
from app.text.tokenizer import Tokenizer
from app.text.truncation import Truncate, cut

Top = tuple[tuple[int, float], ...]
BUDGET = "insufficient_quota"
CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """Prompts, each continued `choices` times."""

    prompts: tuple[Prompt, ...]
    output_tokens_max: int | None = 16
    """None takes all that the model's positions leave; 0 only reads the prompt."""
    sampling: Sampling = field(default_factory=Sampling)
    beams: BeamSearch | None = None
    """Search instead of drawing; the text then comes whole."""
    stops: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    """Tokens that end a text, besides the model's own."""
    shows_stop: bool = False
    """Whether the text includes the stop that ended it."""
    shows_special: bool = False
    """Whether special tokens have a text."""
    adds_special: bool = True
    """Whether a text is read with the special tokens that the model expects."""
    bad_words: tuple[str, ...] = ()
    """Words that are never written."""
    choices: int = 1
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    """Report the prompt's own tokens too, each with this many most probable ones in its place."""
    ignore_eos: bool = False
    truncate: Truncate = Truncate.ERROR
    prompt_tokens_max: int | None = None
    """Read no more of each prompt than this; what is beyond is cut, or refused, as `truncate` says."""


@dataclass(slots=True, kw_only=True)
class PreparedGeneration(Prepared):
    """Decode jobs: prompt by prompt, choice by choice."""

    tokenizer: Tokenizer
    stops: tuple[str, ...]
    prompts: tuple[Prompt, ...]
    eos_ids: frozenset[int]
    stop_ids: tuple[int, ...] = ()
    shows_stop: bool = False
    shows_special: bool = False
    stops_after: int = 0
    """Tokens before which no stop string counts."""
    has_prompt_scores: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenScore:
    """A token's text, its log-probability, and those of the most probable ones (text, logprob), best first.

    A token that is among the most probable ones has the very same number there.
    """

    text: str
    logprob: float | None
    """None for a prompt's first token, which nothing foretells."""
    top: tuple[tuple[str, float], ...]
    token_id: int
    top_ids: tuple[int, ...]
    """As `top`, by id."""
    width: int = 0
    """Characters that the token completed: 0 for a part of one, and for what has no text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptScores:
    """The next tokens of a choice's prompt, as read (after truncation). All of them come before its first TextDelta."""

    index: int
    scores: tuple[TokenScore, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    """New text of one choice: whole characters, never part of a stop string."""

    index: int
    text: str
    scores: tuple[TokenScore, ...] = ()
    pieces: tuple[str, ...] = ()
    """What each of its tokens with a score brought of the text; tokens that bring nothing yet have an empty one."""
    ids: tuple[int, ...] = ()
    """The tokens behind it, those included whose text is held back."""
    is_last: bool = False
    """Whether the choice's end is sure to follow at once, with no token before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDone:
    """The choice's end."""

    index: int
    reason: FinishReason
    stop: str | None = None
    stop_id: int | None = None
    """Which of the caller's own stop tokens ended it."""
    cause: str | None = None
    """Why the text ends early although nothing in it says so: its budget is used up, or its customer ended it."""


class Choice:
    """One row's text on its way out."""

    def __init__(self, index: int, prepared: PreparedGeneration) -> None:
        self.index = index
        job = prepared.jobs[index]
        assert isinstance(job, DecodeJob), "generation decodes. This is a bug."
        self._prompt = job.ids
        self._tokens_max = job.max_new_tokens
        self._prompt_scored = 0
        self._tokenizer = prepared.tokenizer
        self._ends = job.stop_ids
        self._silent = job.stop_ids - frozenset(prepared.stop_ids if prepared.shows_stop else ())
        """Tokens that end the text and are no part of it."""
        self._prompt_text = Detokenizer(partial(prepared.tokenizer.decode, keeps_special=True))
        self._text = Detokenizer(partial(prepared.tokenizer.decode, keeps_special=prepared.shows_special))
        self._stops = StopStrings(prepared.stops, shows_stop=prepared.shows_stop)
        self._stops_after = prepared.stops_after
        self._own_stops = frozenset(prepared.stop_ids)
        self._last_id = -1
        self.tokens = 0
        self.is_over = False

    @property
    def stop(self) -> str | None:
        """The stop string that ended this choice."""
        return self._stops.found

    @property
    def stop_id(self) -> int | None:
        """The caller's own stop token that ended this choice."""
        return self._last_id if self._last_id in self._own_stops else None

    def score(self, logprobs: Sequence[float | None], top: Sequence[Top]) -> PromptScores:
        """The prompt's next tokens."""
        start = self._prompt_scored
        self._prompt_scored += len(logprobs)
        ids = self._prompt[start : self._prompt_scored]
        widths = [len(self._prompt_text.push((token_id,))) for token_id in ids]
        return PromptScores(index=self.index, scores=tuple(map(self._score, ids, logprobs, top, widths)))

    def _score(self, token_id: int, logprob: float | None, top: Top, width: int) -> TokenScore:
        texts = tuple((self._tokenizer.token(other), value) for other, value in top)
        text, ids = self._tokenizer.token(token_id), tuple(other for other, _ in top)
        return TokenScore(text=text, logprob=logprob, top=texts, token_id=token_id, top_ids=ids, width=width)

    def push(self, event: TokenEvent, allowed: int) -> TextDelta:
        """The text of the first `allowed` tokens, up to a stop string. Tokens after it are not counted."""
        if self._stops.is_idle and not event.logprobs:  # no token needs a look of its own
            return self._push_all(event, event.ids[:allowed])
        pieces: list[str] = []
        scores: list[TokenScore] = []
        begun = self.tokens
        for place, token_id in enumerate(event.ids[:allowed]):
            self.tokens += 1
            self._last_id = token_id
            piece = "" if token_id in self._silent else self._text.push((token_id,))
            pieces.append(self._stops.push(piece) if self.tokens > self._stops_after else piece)
            if event.logprobs:
                scores.append(self._score(token_id, event.logprobs[place], event.top[place], len(piece)))
            if self.stop is not None:
                break
        ids = event.ids[: self.tokens - begun]
        return TextDelta(
            index=self.index, text="".join(pieces), scores=tuple(scores), pieces=tuple(pieces), ids=ids,
            is_last=self._is_last(event, ids),
        )  # fmt: skip

    def _push_all(self, event: TokenEvent, ids: tuple[int, ...]) -> TextDelta:
        """The text of `ids`, the allowed ones, at once."""
        spoken = [token_id for token_id in ids if token_id not in self._silent]
        self.tokens += len(ids)
        self._last_id = ids[-1] if ids else self._last_id
        text = self._text.push(spoken) if spoken else ""
        return TextDelta(index=self.index, text=text, ids=ids, is_last=self._is_last(event, ids))

    def _is_last(self, event: TokenEvent, ids: tuple[int, ...]) -> bool:
        """Whether nothing follows the tokens `ids` of an event."""
        is_cut = self.stop is not None or len(ids) < len(event.ids)
        return is_cut or self.tokens == self._tokens_max or event.ids[-1] in self._ends

    def finish(self) -> str:
        """What was held back."""
        return self._stops.push(self._text.finish()) + self._stops.finish()


class Generation:
    """See Task."""

    name = TaskName.GENERATION

    async def prepare(self, request: GenerationRequest, resident: Resident, caller: Caller) -> PreparedGeneration:
        """See Task.prepare."""
        rows_max = resident.model.limits.batch_inputs_max
        if not request.prompts:
            raise EmptyInput("prompt is an empty list; send at least one", field="prompt")
        if len(request.prompts) * request.choices > rows_max:
            raise InvalidRequest(f"prompts times n is at most {rows_max} a request", field="prompt")
        sampling = constrained(request.sampling, request.bad_words, resident)
        refuse_strangers(request.stop_ids, "stop_token_ids", resident)
        read = partial(rows_of, request, resident)
        rows = read() if all(isinstance(one, tuple) for one in request.prompts) else await asyncio.to_thread(read)
        kept = [self._fit(ids, index, request, resident) for index, ids in enumerate(rows)]
        eos = resident.tokenizer.eos_id
        eos_ids = frozenset[int]() if request.ignore_eos or eos is None else frozenset({eos})
        jobs = tuple(
            DecodeJob(
                id=f"{caller.request_id}-{place * request.choices + choice}", model=resident.model.id, ids=ids,
                max_new_tokens=self._room(len(ids), request, resident),
                search=request.beams or seeded(sampling, choice), stop_ids=eos_ids.union(request.stop_ids),
                logprobs=request.logprobs, prompt_logprobs=request.prompt_logprobs,
                is_whole=not caller.is_streaming and not request.stops,  # a stop string is looked for as tokens come
                tenant=caller.tenant, weight=caller.weight,
            )
            for place, ids in enumerate(kept)
            for choice in range(request.choices)
        )  # fmt: skip
        return PreparedGeneration(
            jobs=jobs, input_tokens=sum(map(len, kept)), output_tokens_max=sum(job.max_new_tokens for job in jobs),
            is_output_asked=request.output_tokens_max is not None,
            characters=sum(len(prompt) for prompt in request.prompts if isinstance(prompt, str)),
            is_cut_anywhere=True, tokenizer=resident.tokenizer, stops=request.stops, prompts=request.prompts,
            eos_ids=eos_ids, stop_ids=request.stop_ids, shows_stop=request.shows_stop,
            shows_special=request.shows_special, stops_after=sampling.min_tokens,
            has_prompt_scores=request.prompt_logprobs is not None,
            is_truncated=tuple(len(a) != len(b) for a, b in zip(rows, kept, strict=True)),
        )  # fmt: skip

    def _fit(self, ids: tuple[int, ...], index: int, request: GenerationRequest, resident: Resident) -> tuple[int, ...]:
        wanted = 1 if request.output_tokens_max is None else request.output_tokens_max
        positions = resident.loaded.positions_max
        limits = (resident.model.limits.input_tokens_max, request.prompt_tokens_max)
        room = min([positions - wanted, *(limit for limit in limits if limit is not None)])
        if len(ids) <= room:
            return ids
        if request.truncate is Truncate.ERROR or room < 1:
            raise ContextLengthExceeded(
                f"prompt {index} has {len(ids)} tokens and max_tokens is {wanted}, but {resident.model.id} spans "
                f"{positions}; shorten the prompt, lower max_tokens, or set truncate to left or right",
                field=f"prompt.{index}",
            )
        return cut(ids, room, request.truncate)

    def _room(self, prompt_tokens: int, request: GenerationRequest, resident: Resident) -> int:
        room = resident.loaded.positions_max - prompt_tokens
        wanted = room if request.output_tokens_max is None else request.output_tokens_max
        limit = resident.model.limits.output_tokens_max
        if limit is not None and request.output_tokens_max is not None and request.output_tokens_max > limit:
            raise InvalidRequest(f"max_tokens is at most {limit} for {resident.model.id}", field="max_tokens")
        return min(wanted, limit or wanted)

    async def events(
        self, prepared: PreparedGeneration, session: JobSession
    ) -> AsyncIterator[PromptScores | TextDelta | TextDone]:
        """See Task.events."""
        place_of = places(prepared.jobs)
        choices = {job.id: Choice(index, prepared) for index, job in enumerate(prepared.jobs)}
        if prepared.has_prompt_scores:
            for choice in choices.values():
                yield choice.score([None], [()])
        async for event in events_of(session):
            choice = choices[event.job_id]
            if choice.is_over:
                continue
            if isinstance(event, TokenEvent):
                allowed = await prepared.allow(prepared.delivered_tokens, len(event.ids))
                delta = choice.push(event, allowed)
                prepared.output_tokens[event.job_id] = choice.tokens
                if delta.ids:
                    yield delta
                if choice.stop is not None:
                    choice.is_over = True
                    await session.cancel(event.job_id)
                    yield TextDone(index=choice.index, reason=FinishReason.STOP, stop=choice.stop)
                elif allowed < len(event.ids):
                    choice.is_over = True
                    await session.cancel(event.job_id)
                    if rest := choice.finish():
                        yield TextDelta(index=choice.index, text=rest)
                    yield TextDone(index=choice.index, reason=FinishReason.LENGTH, cause=BUDGET)
            elif isinstance(event, PromptEvent):
                yield choice.score(event.logprobs, event.top)
            elif isinstance(event, FinishedEvent):
                rest = choice.finish()
                if rest:
                    yield TextDelta(index=place_of[event.job_id], text=rest)
                if prepared.is_cancelled and event.reason is FinishReason.CANCELLED:
                    yield TextDone(index=choice.index, reason=FinishReason.LENGTH, cause=CANCELLED)
                    continue
                reason = FinishReason.STOP if choice.stop is not None else event.reason
                yield TextDone(index=choice.index, reason=reason, stop=choice.stop, stop_id=choice.stop_id)


def rows_of(request: GenerationRequest, resident: Resident) -> list[tuple[int, ...]]:
    """The ids of each prompt; of texts, on a thread: a long one takes a while."""
    return [
        ids_of(prompt, index, resident, adds_special=request.adds_special)
        for index, prompt in enumerate(request.prompts)
    ]


def seeded(sampling: Sampling, choice: int) -> Sampling:
    """Each choice draws from a generator of its own: the seed plus its number."""
    if sampling.seed is None or not choice:
        return sampling
    return dataclasses.replace(sampling, seed=sampling.seed + choice)
