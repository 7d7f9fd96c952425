"""The loop: takes messages, lets each model make a step, hands its events over. One thread; no asyncio, no text."""

import logging
from collections.abc import Callable
from queue import Empty, SimpleQueue

import torch

from app.clock import Clock
from app.engine.client import EngineStats, LoadedModel
from app.engine.compute.decode import Decoder
from app.engine.compute.kernels import set_threads
from app.engine.compute.models import Resident, load_model
from app.engine.compute.residence import give_back
from app.engine.compute.warm import warm
from app.engine.decoding import DecodeLane
from app.engine.encoding import EncodeLane
from app.engine.events import Event, FailedEvent, together
from app.engine.jobs import Job, ModelSpec
from app.engine.messages import Cancel, Close, Load, Message, Pause, Submit, Unload
from app.engine.settings import EngineSettings
from app.errors import EngineLost, ModelUnavailable, TollgateError

FLUSH_S = 0.002
log = logging.getLogger(__name__)


class EngineLoop:
    """Owns the models, the rows and the step. `emit_batch` receives a step's events at once, on the loop's thread."""

    def __init__(self, *, settings: EngineSettings, clock: Clock, emit_batch: Callable[[list[Event]], None]) -> None:
        self.inbox: SimpleQueue[Message] = SimpleQueue()
        self._settings = settings
        self._clock = clock
        self._emit_batch = emit_batch
        self._events: list[Event] = []
        self._lanes: dict[str, DecodeLane | EncodeLane] = {}
        self._steps = 0
        self._flushed_s = 0.0
        self._is_open = True
        self._stepping_since_s: float | None = None

    def run(self) -> None:
        """Work until a Close message; then fail what is open with EngineLost."""
        if self._settings.threads:
            set_threads(self._settings.threads)
        with torch.inference_mode():
            while self._is_open:
                self._stepping_since_s = self._clock.monotonic_s()
                is_idle = not self._step()
                self._stepping_since_s = None
                self._receive(is_idle=is_idle)
        for name in list(self._lanes):
            self._drop_lane(name, EngineLost())
        self._flush()

    def _flush(self) -> None:
        """Hand over what has been emitted since the last time."""
        if self._events:
            batch = together(self._events)
            self._events.clear()
            self._emit_batch(batch)

    def _flush_soon(self) -> None:
        """The same where steps are shorter than a message is worth: FLUSH_S apart, a job's tokens together."""
        now_s = self._clock.monotonic_s()
        if self._events and now_s - self._flushed_s >= FLUSH_S:
            self._flushed_s = now_s
            self._flush()

    def _is_called(self) -> bool:
        """Whether a message waits, or more than one lane has work."""
        busy = sum(bool(lane.running or len(lane.waiting)) for lane in self._lanes.values())
        return busy > 1 or not self.inbox.empty()

    def stats(self) -> EngineStats:
        """A snapshot; read from another thread, so it may be one step old."""
        found = list(self._lanes.values())
        lanes = [lane.stats for lane in found]
        since_s = self._stepping_since_s
        decoders = sum(isinstance(lane, DecodeLane) for lane in found)
        return EngineStats(
            running=sum(lane.running for lane in lanes),
            waiting=sum(lane.waiting for lane in lanes),
            loaded=tuple(lane.model for lane in lanes),
            is_alive=self._is_open,
            steps=self._steps,
            kv_usage=sum(lane.kv_usage for lane in lanes) / decoders if decoders else 0.0,
            step_s=0.0 if since_s is None else self._clock.monotonic_s() - since_s,
            lanes=tuple(lanes),
        )

    def _receive(self, *, is_idle: bool) -> None:
        try:
            message = self.inbox.get(block=is_idle, timeout=0.05 if is_idle and self._has_deadline() else None)
            while True:
                self._handle(message)
                message = self.inbox.get_nowait()
        except Empty:
            if is_idle:
                self._flush()

    def _has_deadline(self) -> bool:
        return any(len(lane.waiting) for lane in self._lanes.values())

    def _handle(self, message: Message) -> None:
        match message:
            case Submit(job):
                self._admit(job)
            case Cancel(job_id):
                for lane in self._lanes.values():
                    lane.cancel(job_id)
            case Load(spec, reply):
                reply(self._load(spec))
            case Unload(model):
                self._drop_lane(model, ModelUnavailable("The model was unloaded while it worked on this; try again."))
            case Pause(job_id, is_paused):
                for lane in self._lanes.values():
                    if isinstance(lane, DecodeLane):
                        lane.pause(job_id, is_paused=is_paused)
            case Close():
                self._is_open = False

    def _load(self, spec: ModelSpec) -> LoadedModel | TollgateError:
        try:
            resident = load_model(spec, slots=self._settings.slots, device=self._settings.device)
            warm(resident)
        except TollgateError as refused:
            return refused
        except Exception:
            log.exception("loading %s failed", spec.id)
            return ModelUnavailable()
        self._drop_lane(spec.id, ModelUnavailable())
        self._lanes[spec.id] = self._lane(resident)
        give_back()
        return resident.loaded

    def _lane(self, resident: Resident) -> DecodeLane | EncodeLane:
        model, settings, clock, emit = resident.model, self._settings, self._clock, self._events.append
        if isinstance(model, Decoder):
            return DecodeLane(
                resident=resident, decoder=model, settings=settings, clock=clock, emit=emit, flush=self._flush_soon,
                is_called=self._is_called,
            )  # fmt: skip
        return EncodeLane(resident=resident, settings=settings, clock=clock, emit=emit)

    def _admit(self, job: Job) -> None:
        lane = self._lanes.get(job.model)
        if lane is None:
            self._events.append(FailedEvent(job_id=job.id, error=ModelUnavailable()))
        else:
            lane.admit(job)

    def _drop_lane(self, name: str, error: TollgateError) -> None:
        lane = self._lanes.pop(name, None)
        if lane is not None:
            lane.drop(error)
            del lane
            give_back()

    def _step(self) -> bool:
        """One step of every lane; False when there was nothing to do."""
        has_worked = False
        for lane in list(self._lanes.values()):
            lane.expire()
            has_stepped = lane.step()
            has_worked |= has_stepped
            if not (has_stepped and lane.flushes_ahead):
                self._flush()
        if not has_worked:
            self._flush()
        self._steps += has_worked
        return has_worked
