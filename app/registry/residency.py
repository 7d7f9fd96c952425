"""Which models are in memory: loaded at start or when asked for, counted while in use, let go when room is needed."""

import asyncio
import dataclasses
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from app.clock import Clock
from app.engine.client import EngineClient, LoadedModel
from app.engine.jobs import Head, ModelSpec
from app.errors import (
    Conflict,
    MemoryBudgetExceeded,
    ModelLoading,
    ModelNotFound,
    ModelUnavailable,
    TollgateError,
    VerificationFailed,
)
from app.registry.catalogue import HEADS, Catalogue
from app.registry.locate import locate
from app.registry.model import HubSource, LoadPolicy, Model, ScoreFunction
from app.registry.sentence_vectors import VectorRules, read_rules
from app.registry.settings import RegistrySettings
from app.registry.verify import verify
from app.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)
NOT_LOADED = "The model {} could not be loaded; the operator's log says why."
LOAD_FAILED = "model %s could not be loaded: %s"
AGAIN_S = 5.0
"""How long no request tries again what failed, unless it was for want of room."""
UNLOAD_POLL_S = 0.02


class State(StrEnum):
    """How far a model has come."""

    ABSENT = "absent"
    LOADING = "loading"
    RESIDENT = "resident"
    UNLOADING = "unloading"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """A model in memory and what is needed to speak with it."""

    model: Model
    loaded: LoadedModel
    tokenizer: Tokenizer
    labels: tuple[str, ...]
    folder: Path
    score_function: ScoreFunction = ScoreFunction.SOFTMAX
    """What the checkpoint's labels were trained for."""
    vectors: VectorRules | None = None
    """How its vectors are made; only of a model that makes some."""


@dataclass(slots=True)
class Place:
    """A model's changing state; owned by the event loop."""

    model: Model
    state: State = State.ABSENT
    resident: Resident | None = None
    users: int = 0
    used_s: float = 0.0
    needed_bytes: int = 0
    """What it took when it was in memory last."""
    error: str | None = None
    again_s: float = 0.0
    """Before then no request tries it: what is wrong with files, device or engine is so for each of them."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def memory_bytes(self) -> int:
        """What it takes while it is resident."""
        return 0 if self.resident is None else self.resident.loaded.memory_bytes


class Residency:
    """Hands out models. A lease keeps its model in memory; what nobody leases may be evicted, the oldest first."""

    def __init__(
        self, *, catalogue: Catalogue, engine: EngineClient, settings: RegistrySettings, home: Path, clock: Clock
    ) -> None:
        self._catalogue = catalogue
        self._engine = engine
        self._settings = settings
        self._home = home
        self._clock = clock
        self._places = {model.id: Place(model) for model in catalogue if model.is_enabled}
        engine.on_gone = self._note_gone

    @property
    def places(self) -> list[Place]:
        """Every enabled model's state, in the catalogue's order."""
        return list(self._places.values())

    @property
    def memory_bytes(self) -> int:
        """What the resident models take together."""
        return sum(place.resident.loaded.memory_bytes for place in self.places if place.resident is not None)

    def find(self, model_id: str) -> Place:
        """An enabled model's state. Raises ModelNotFound."""
        self._catalogue.find(model_id)
        return self._places[model_id]

    async def load_at_start(self) -> None:
        """Load the models that the catalogue wants from the start, one by one; a failure is logged and kept."""
        for place in self.places:
            if place.model.load is LoadPolicy.START:
                try:
                    await self.load(place.model.id)
                except MemoryBudgetExceeded as error:
                    log.error(LOAD_FAILED, place.model.id, error.message)
                except TollgateError:
                    continue  # it is logged

    @asynccontextmanager
    async def lease(self, model_id: str) -> AsyncGenerator[Resident]:
        """The model, loaded if need be, and kept until the scope ends.

        Raises ModelNotFound, ModelLoading (it takes longer than `load_wait_s`; loading goes on), ModelUnavailable.
        """
        place = self.find(model_id)
        if place.state is State.UNLOADING:
            raise ModelUnavailable(f"The model {model_id} is being unloaded; try again shortly.", retry_after_s=1.0)
        place.users += 1
        try:
            yield place.resident or await self._wait_for(place)
        finally:
            place.users -= 1
            place.used_s = self._clock.monotonic_s()

    async def load(self, model_id: str, *, is_pressing: bool = True) -> Resident:
        """Bring a model into memory. Idempotent. Raises what stood in the way.

        What failed is not tried again for a while, unless it is pressing: then ModelUnavailable.
        """
        place = self.find(model_id)
        async with place.lock:
            if place.resident is not None:
                return place.resident
            pause_s = place.again_s - self._clock.monotonic_s()
            if pause_s > 0 and not is_pressing:
                raise ModelUnavailable(NOT_LOADED.format(model_id), retry_after_s=pause_s)
            place.state, place.error, place.again_s = State.LOADING, None, 0.0
            try:
                place.resident = await self._load(place)
            except TollgateError as error:
                self._note_failed(place, error, error.message)
                raise
            except Exception as error:
                self._note_failed(place, error, f"{type(error).__name__}: {error}")
                raise ModelUnavailable(NOT_LOADED.format(model_id), retry_after_s=AGAIN_S) from error
            except BaseException:
                place.state = State.ABSENT
                raise
            place.state = State.RESIDENT
            place.used_s = self._clock.monotonic_s()
            return place.resident

    async def unload(self, model_id: str, *, wait_s: float = 30.0) -> None:
        """Let a model go once its requests are done; new ones are refused meanwhile. Raises Conflict after `wait_s`."""
        place = self.find(model_id)
        async with place.lock:
            if place.resident is None:
                place.state = State.ABSENT
                return
            place.state = State.UNLOADING
            give_up_s = self._clock.monotonic_s() + wait_s
            while place.users and self._clock.monotonic_s() < give_up_s:  # noqa: ASYNC110 (a lease's end must cost nothing)
                await asyncio.sleep(UNLOAD_POLL_S)
            if place.users:
                place.state = State.RESIDENT
                raise Conflict(f"{model_id} still serves {place.users} requests; try again when they are done")
            await self._drop(place)

    async def _wait_for(self, place: Place) -> Resident:
        loading = asyncio.create_task(self.load(place.model.id, is_pressing=False))
        try:
            return await asyncio.wait_for(asyncio.shield(loading), self._settings.load_wait_s)
        except TimeoutError:
            loading.add_done_callback(lambda task: task.cancelled() or task.exception())
            raise ModelLoading from None
        except (ModelNotFound, ModelUnavailable, MemoryBudgetExceeded):
            raise
        except TollgateError as error:
            raise ModelUnavailable(NOT_LOADED.format(place.model.id), retry_after_s=AGAIN_S) from error
        except asyncio.CancelledError:
            loading.add_done_callback(lambda task: task.cancelled() or task.exception())
            raise

    async def _load(self, place: Place) -> Resident:
        model = place.model
        if isinstance(model.source, HubSource) and not model.source.is_pinned:
            log.warning(
                "model %s follows %s of %s, which may change: `tollgate models pull %s` prints the commit to pin",
                model.id, model.source.revision, model.source.repo, model.id,
            )  # fmt: skip
        folder = await asyncio.to_thread(
            locate, model, catalogue_folder=self._catalogue.folder, home=self._home, settings=self._settings
        )
        await asyncio.to_thread(verify, model, folder)
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        labels = model.labels or labels_of(config)
        on_disk = await asyncio.to_thread(weight_bytes, folder)
        await self._make_room(max(on_disk, place.needed_bytes), besides=place)
        tokenizer = await asyncio.to_thread(Tokenizer, folder)
        spec = ModelSpec(
            id=model.id, folder=str(folder), head=HEADS[model.tasks[0]], precision=model.precision,
            allow_pickle=model.allow_pickle,
        )  # fmt: skip
        rules = await asyncio.to_thread(read_rules, folder) if spec.head is Head.EMBED else None
        if rules is not None:
            spec = dataclasses.replace(spec, pooling=rules.pooling)
        loaded = await self._engine.load(spec)
        place.needed_bytes = loaded.memory_bytes
        try:
            await self._make_room(loaded.memory_bytes, besides=place)
        except BaseException:
            await self._engine.unload(model.id)
            raise
        return Resident(
            model=model, loaded=loaded, tokenizer=tokenizer, labels=labels, folder=folder,
            score_function=score_function_of(config), vectors=rules,
        )  # fmt: skip

    async def _make_room(self, needed_bytes: int, *, besides: Place) -> None:
        """Evict idle models, the oldest first, until `needed_bytes` fit; none where that is not enough.

        Raises MemoryBudgetExceeded.
        """
        budget = self._settings.memory_bytes
        idle = [place for place in self.places if place is not besides and is_idle(place)]
        least = self.memory_bytes - sum(place.memory_bytes for place in idle)
        if budget and least + needed_bytes <= budget:
            for oldest in sorted(idle, key=lambda place: place.used_s):
                if self.memory_bytes + needed_bytes <= budget:
                    break
                if is_idle(oldest):  # still, after the one before has gone
                    log.info("model %s is evicted to make room for %s", oldest.model.id, besides.model.id)
                    await self._drop(oldest)
        if budget and self.memory_bytes + needed_bytes > budget:
            raise MemoryBudgetExceeded(
                f"The model {besides.model.id} needs {needed_bytes:,} bytes and {self.memory_bytes:,} of "
                f"{budget:,} are in use; try again when other models are idle."
            )

    def _note_failed(self, place: Place, error: Exception, reason: str) -> None:
        place.state, place.error = State.FAILED, reason
        if isinstance(error, MemoryBudgetExceeded):
            return  # there may be room at any time, and to look costs little
        place.again_s = self._clock.monotonic_s() + AGAIN_S
        log.error(LOAD_FAILED, place.model.id, reason, exc_info=None if isinstance(error, TollgateError) else error)

    def _note_gone(self, model_id: str, reason: str) -> None:
        """The engine has it no more: the next request for it loads it, as one that was never there."""
        place = self._places[model_id]
        if place.resident is not None:
            place.state, place.resident, place.error = State.FAILED, None, reason

    async def _drop(self, place: Place) -> None:
        place.state, place.resident = State.ABSENT, None
        await self._engine.unload(place.model.id)


def is_idle(place: Place) -> bool:
    """Whether the model may be evicted."""
    return place.state is State.RESIDENT and not place.users and not place.model.is_pinned


def weight_bytes(folder: Path) -> int:
    """The size of the weights on disk: a first guess at what they take in memory."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".safetensors", ".bin"))


def labels_of(config: dict[str, Any]) -> tuple[str, ...]:
    """The checkpoint's own label names, in the order of its logits; none for a model without.

    Raises VerificationFailed.
    """
    found: dict[str, str] = config.get("id2label") or {}
    try:
        return tuple(found[index] for index in sorted(found, key=int))
    except (AttributeError, TypeError, ValueError) as error:
        raise VerificationFailed("config.json: id2label must give each number of a label its name") from error


def score_function_of(config: dict[str, Any]) -> ScoreFunction:
    """As transformers' classification pipeline chooses."""
    match config.get("problem_type"):
        case "regression":
            return ScoreFunction.NONE
        case "multi_label_classification":
            return ScoreFunction.SIGMOID
        case _:
            return ScoreFunction.SIGMOID if len(config.get("id2label") or {}) == 1 else ScoreFunction.SOFTMAX
