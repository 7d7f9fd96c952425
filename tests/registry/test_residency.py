"""Models in and out of memory: loaded once, kept while used, evicted by the budget, refused with a reason."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from app.clock import Clock, SystemClock
from app.engine.client import LoadedModel
from app.engine.jobs import ModelSpec
from app.engine.settings import EngineSettings
from app.engine.transports.inline import InlineEngine
from app.errors import Conflict, EngineLost, MemoryBudgetExceeded, ModelUnavailable, VerificationFailed
from app.registry.catalogue import load_catalogue
from app.registry.residency import Residency, State
from app.registry.settings import RegistrySettings
from tests.fixtures.clock import TurnedClock
from tests.fixtures.residency import write_catalogue


def residency_over(
    engine: InlineEngine, home: Path, checkpoints: dict[str, Path], *, clock: Clock | None = None, memory_bytes: int = 0
) -> Residency:
    """Residency of these checkpoints, whose catalogue lies in `home`."""
    return Residency(
        catalogue=load_catalogue(write_catalogue(home, checkpoints)), engine=engine,
        settings=RegistrySettings(memory_bytes=memory_bytes), home=home, clock=clock or SystemClock(),
    )  # fmt: skip


async def test_a_model_is_loaded_once_for_many_and_kept_while_used(residency: Residency) -> None:
    async def use() -> str:
        async with residency.lease("tiny-gpt2") as resident:
            await asyncio.sleep(0.05)
            assert residency.find("tiny-gpt2").state is State.RESIDENT
            return resident.loaded.id

    assert await asyncio.gather(*(use() for _ in range(8))) == ["tiny-gpt2"] * 8
    async with residency.lease("tiny-gpt2"):
        with pytest.raises(Conflict, match="still serves 1"):
            await residency.unload("tiny-gpt2", wait_s=0.05)
    await residency.unload("tiny-gpt2")
    assert residency.find("tiny-gpt2").state is State.ABSENT
    assert residency.memory_bytes == 0


async def test_unloading_waits_for_the_running_and_refuses_the_new(residency: Residency) -> None:
    async with residency.lease("tiny-bert-qa"):
        unloading = asyncio.create_task(residency.unload("tiny-bert-qa"))
        await asyncio.sleep(0.05)
        with pytest.raises(ModelUnavailable):
            async with residency.lease("tiny-bert-qa"):
                pass
        assert not unloading.done()
    await unloading
    async with residency.lease("tiny-bert-qa") as resident:
        assert resident.labels == ("NEGATIVE", "POSITIVE")


async def test_the_budget_evicts_the_idle_oldest_and_never_the_used(
    tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    engine = InlineEngine(settings=EngineSettings(threads=1, slots=1), clock=SystemClock())
    sizes = {}
    free = residency_over(engine, tmp_path, checkpoints)
    for name in ("tiny-bert-qa", "tiny-bert-classifier", "tiny-bert-nli"):
        sizes[name] = (await free.load(name)).loaded.memory_bytes
    for name in sizes:
        await free.unload(name)
    tight = residency_over(
        engine, tmp_path, checkpoints, memory_bytes=sizes["tiny-bert-qa"] + sizes["tiny-bert-classifier"] + 10_000
    )
    await tight.load("tiny-bert-qa")
    await tight.load("tiny-bert-classifier")
    async with tight.lease("tiny-bert-qa"), tight.lease("tiny-bert-classifier"):
        with pytest.raises(MemoryBudgetExceeded, match="are in use"):
            await tight.load("tiny-bert-nli")
    assert tight.find("tiny-bert-nli").state is State.FAILED
    async with tight.lease("tiny-bert-classifier"):
        pass
    async with tight.lease("tiny-bert-nli"):
        assert tight.find("tiny-bert-qa").state is State.ABSENT
    await engine.close()


async def test_a_folder_that_is_not_what_the_catalogue_says_is_refused(
    tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(checkpoints["tiny-bert-qa"], broken)
    engine = InlineEngine(settings=EngineSettings(threads=1), clock=SystemClock())
    made = residency_over(engine, tmp_path, checkpoints | {"tiny-bert-qa": broken})
    weights = broken / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VerificationFailed, match=r"model\.safetensors"):
        await made.load("tiny-bert-qa")
    weights.rename(broken / "pytorch_model.bin")
    with pytest.raises(VerificationFailed, match="allow_pickle"):
        await made.load("tiny-bert-qa")
    (broken / "config.json").write_text(json.dumps({"model_type": "llama"}), encoding="utf-8")
    with pytest.raises(VerificationFailed, match="'llama'"):
        await made.load("tiny-bert-qa")
    with pytest.raises(ModelUnavailable):
        async with made.lease("tiny-bert-qa"):
            pass
    assert "llama" in (made.find("tiny-bert-qa").error or "")
    await engine.close()


async def test_what_is_wrong_is_tried_once_for_a_crowd_and_again_when_it_is_pressing_or_time_has_passed(
    tmp_path: Path, checkpoints: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "mended-later"
    shutil.copytree(checkpoints["tiny-bert-qa"], folder)
    whole = (folder / "config.json").read_text(encoding="utf-8")
    (folder / "config.json").write_text("{}", encoding="utf-8")
    engine, clock = InlineEngine(settings=EngineSettings(threads=1), clock=SystemClock()), TurnedClock()
    made = residency_over(engine, tmp_path, checkpoints | {"tiny-bert-qa": folder}, clock=clock)

    async def refused() -> float:
        with pytest.raises(ModelUnavailable) as caught:
            async with made.lease("tiny-bert-qa"):
                pass
        assert caught.value.retry_after_s is not None
        return caught.value.retry_after_s

    assert await asyncio.gather(*(refused() for _ in range(20))) == [5.0] * 20
    assert sum("could not be loaded" in record.getMessage() for record in caplog.records) == 1
    clock.turn(3)
    assert await refused() == 2.0
    with pytest.raises(VerificationFailed):  # an operator's own try says why
        await made.load("tiny-bert-qa")
    assert await refused() == 5.0
    (folder / "config.json").write_text(whole, encoding="utf-8")
    clock.turn(6)
    async with made.lease("tiny-bert-qa"):
        pass
    await engine.close()


class CountingEngine(InlineEngine):
    """Knows what it was asked to load."""

    def __init__(self, *, settings: EngineSettings) -> None:
        super().__init__(settings=settings, clock=SystemClock())
        self.loads: list[str] = []

    async def load(self, spec: ModelSpec) -> LoadedModel:
        self.loads.append(spec.id)
        return await super().load(spec)


async def test_what_did_not_fit_once_it_was_loaded_is_not_loaded_to_see_it_again_and_nothing_goes_for_it_in_vain(
    tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    engine = CountingEngine(settings=EngineSettings(threads=1, slots=64))
    free = residency_over(engine, tmp_path, checkpoints)
    size, small = [(await free.load(name)).loaded.memory_bytes for name in ("tiny-gpt2", "tiny-bert-qa")]
    await free.unload("tiny-gpt2")
    await free.unload("tiny-bert-qa")
    assert size > 2 * small, "most of it is its cache, of which the files say nothing"
    tight = residency_over(engine, tmp_path, checkpoints, memory_bytes=size - 1)
    engine.loads.clear()

    async def refused() -> None:
        with pytest.raises(MemoryBudgetExceeded, match=f"needs {size:,} bytes"):
            async with tight.lease("tiny-gpt2"):
                pass

    await refused()
    await tight.load("tiny-bert-qa")
    await asyncio.gather(*(refused() for _ in range(5)))
    assert engine.loads == ["tiny-gpt2", "tiny-bert-qa"]
    assert tight.find("tiny-bert-qa").state is State.RESIDENT
    assert tight.memory_bytes == small
    await engine.close()


async def test_labels_that_are_not_numbered_are_refused_before_the_engine_has_the_model(
    tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    folder = tmp_path / "unnumbered"
    shutil.copytree(checkpoints["tiny-bert-classifier"], folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"id2label": ["neg", "pos"]}), encoding="utf-8")
    engine = CountingEngine(settings=EngineSettings(threads=1))
    made = residency_over(engine, tmp_path, checkpoints | {"tiny-bert-classifier": folder})
    with pytest.raises(VerificationFailed, match="id2label"):
        await made.load("tiny-bert-classifier")
    assert engine.loads == []
    await engine.close()


class FailingEngine(InlineEngine):
    """Loads nothing, for a reason that may be nobody's foresight."""

    reason: Exception
    asked: int = 0

    async def load(self, spec: ModelSpec) -> LoadedModel:
        self.asked += 1
        raise self.reason


@pytest.mark.parametrize("reason", [EngineLost(), ModelUnavailable(), RuntimeError("out of something")], ids=repr)
async def test_a_load_that_brings_the_engine_down_or_fails_as_nobody_foresaw_is_not_tried_by_every_request(
    reason: Exception, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    engine, clock = FailingEngine(settings=EngineSettings(threads=1), clock=SystemClock()), TurnedClock()
    engine.reason = reason
    made = residency_over(engine, tmp_path, checkpoints, clock=clock)

    async def refused() -> None:
        with pytest.raises(ModelUnavailable):
            async with made.lease("tiny-bert-qa"):
                pass

    await asyncio.gather(*(refused() for _ in range(20)))
    assert engine.asked == 1
    assert made.find("tiny-bert-qa").state is State.FAILED
    clock.turn(6)
    await refused()
    assert engine.asked == 2
    await engine.close()
