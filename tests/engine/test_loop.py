"""The loop tells how long it has been over a step, so that others can see when it hangs."""

from pathlib import Path

import torch

from app.engine.client import LoadedModel
from app.engine.events import Event, FinishedEvent
from app.engine.jobs import DecodeJob, Head, ModelSpec, Sampling
from app.engine.loop import EngineLoop
from app.engine.messages import Close, Load, Submit
from app.engine.settings import EngineSettings
from app.errors import TollgateError
from tests.fixtures.clock import TurnedClock


def test_the_time_over_a_step_is_told_while_it_lasts(checkpoints: dict[str, Path]) -> None:
    clock = TurnedClock()
    seen: list[float] = []
    loaded: list[LoadedModel | TollgateError] = []

    def emit(events: list[Event]) -> None:
        clock.turn(7.0)
        seen.append(loop.stats().step_s)
        if isinstance(events[-1], FinishedEvent):
            loop.inbox.put(Close())

    loop = EngineLoop(settings=EngineSettings(threads=1, slots=1), clock=clock, emit_batch=emit)
    spec = ModelSpec(id="x", folder=str(checkpoints["tiny-gpt2"]), head=Head.GENERATE)
    loop.inbox.put(Load(spec, loaded.append))
    job = DecodeJob(id="1", model="x", ids=(5, 6), max_new_tokens=2, search=Sampling(temperature=0))
    loop.inbox.put(Submit(job))
    threads = torch.get_num_threads()
    try:
        loop.run()
    finally:
        torch.set_num_threads(threads)
    assert isinstance(loaded[0], LoadedModel)
    assert seen == [7.0, 7.0], "each step is told by itself"
    assert loop.stats().step_s == 0
