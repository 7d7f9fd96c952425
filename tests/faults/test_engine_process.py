"""The engine's process is killed, or its parent, or one of the workers that share it: every job still ends once."""

import asyncio
import json
import logging
import os
import random
import shutil
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Table, select

from app.engine.client import EngineClient
from app.engine.events import Event, FailedEvent, FinishedEvent, FinishReason, TokenEvent
from app.engine.jobs import DecodeJob, Head, ModelSpec, Sampling
from app.engine.settings import EngineSettings
from app.engine.transports.child import ChildEngine
from app.engine.transports.process import KeptProcess
from app.errors import EngineLost
from app.metering.database import Database
from app.metering.tables import hold, usage_entry
from tests.fixtures.process import children_of, is_running
from tests.fixtures.residency import write_catalogue
from tests.fixtures.server import Running, make_key, running_server

END_S = 60
HANG_S = 4


def kill_engine(engine: EngineClient) -> None:
    assert isinstance(engine, ChildEngine) and engine.process is not None
    engine.process.signal(signal.SIGKILL)


async def readiness(server: Running) -> list[int]:
    """What `/readyz` says one after the other, until it was away and is back."""
    seen: list[int] = []
    while seen[-2:] != [503, 200]:
        status = (await server.client.get("/readyz")).status_code
        if seen[-1:] != [status]:
            seen.append(status)
        await asyncio.sleep(0.01)
    return seen


@pytest.fixture
async def server(tmp_path: Path, checkpoints: dict[str, Path]) -> AsyncIterator[Running]:
    async with running_server(tmp_path, checkpoints, {"threads": 1, "slots": 4}) as running:
        yield running


async def test_killed_under_sixteen_streams_every_client_sees_an_end_and_is_counted_once(server: Running) -> None:
    engine = server.app.state.serving.engine
    began = asyncio.Event()
    body = {"model": "tiny-gpt2", "prompt": "one", "max_tokens": 60, "stream": True, "ignore_eos": True}

    async def stream() -> str:
        async with server.client.stream("POST", "/v1/completions", json=body) as answer:
            assert answer.status_code in (200, 503)
            lines = [line async for line in noted(answer.aiter_lines(), began)]
        failures = [json.loads(line.removeprefix("data: "))["error"]["code"] for line in lines if '"error"' in line]
        return failures[0] if failures else lines[-1].removeprefix("data: ")

    streams = [asyncio.create_task(stream()) for _ in range(16)]
    ready = asyncio.create_task(readiness(server))
    await began.wait()
    kill_engine(engine)
    ends = await asyncio.wait_for(asyncio.gather(*streams), END_S)
    assert set(ends) == {"[DONE]", "engine_lost"}, "some had begun and fail, the others are begun again"
    assert await asyncio.wait_for(ready, END_S) == [200, 503, 200]
    entries = await server.settled(16)
    assert len({entry["request_id"] for entry in entries}) == len(entries) == 16
    assert sum(entry["outcome"] == "finished" for entry in entries) == ends.count("[DONE]")
    assert all(entry["output_tokens"] == 60 for entry in entries if entry["outcome"] == "finished")
    assert (await server.client.post("/v1/completions", json=body | {"stream": False})).status_code == 200


async def test_a_model_whose_folder_went_away_is_loaded_again_when_it_is_back(
    tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    """Its weights are in memory, so that nobody notices before the engine begins anew."""
    moved = {name: Path(shutil.copytree(folder, tmp_path / name)) for name, folder in checkpoints.items()}
    body = {"model": "tiny-gpt2", "prompt": "one", "max_tokens": 5}
    (tmp_path / "home").mkdir()
    async with running_server(tmp_path / "home", moved, {"threads": 1, "slots": 4}) as server:
        boss, post = {"authorization": f"Bearer {server.admin_key}"}, server.client.post
        moved["tiny-gpt2"].rename(tmp_path / "away")
        assert (await post("/v1/completions", json=body)).status_code == 200
        ready = asyncio.create_task(readiness(server))
        kill_engine(server.app.state.serving.engine)
        await asyncio.wait_for(ready, END_S)
        other = {"model": "tiny-bert-classifier", "input": "hello"}
        assert (await post("/v1/classifications", json=other)).status_code == 200, "the others are there again"
        refused = await post("/v1/completions", json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_unavailable")
        listed = (await server.client.get("/admin/models", headers=boss)).json()["data"]
        assert "tiny-gpt2" in next(one["error"] for one in listed if one["id"] == "tiny-gpt2")
        (tmp_path / "away").rename(moved["tiny-gpt2"])
        told = await post("/v1/completions", json=body)
        assert told.status_code == 503, "what failed a moment ago is not tried by every request"
        await asyncio.sleep(int(told.headers["retry-after"]))
        assert (await post("/v1/completions", json=body)).status_code == 200


async def noted(lines: AsyncIterator[str], began: asyncio.Event) -> AsyncIterator[str]:
    async for line in lines:
        if line.startswith(("data:", "{")):
            began.set()
            yield line


def decode(name: str, tokens: int) -> DecodeJob:
    search = Sampling(temperature=0)
    return DecodeJob(id=name, model="tiny-gpt2", ids=(5, 6), max_new_tokens=tokens, search=search)


async def collect(engine: EngineClient, job: DecodeJob) -> list[Event]:
    return [event async for event in engine.submit(job)]


async def test_an_engine_that_hangs_is_killed_and_its_jobs_end(checkpoints: dict[str, Path]) -> None:
    engine = ChildEngine.start(EngineSettings(slots=2, threads=1, hang_s=HANG_S), log_level="error")
    assert engine.process is not None
    await engine.load(ModelSpec(id="tiny-gpt2", folder=str(checkpoints["tiny-gpt2"]), head=Head.GENERATE))
    await asyncio.sleep(HANG_S + 0.5)
    assert engine.stats().is_alive, "an idle engine says that it lives"
    before = engine.process.pid
    began = engine.submit(decode("begun", 60))
    await anext(began)
    engine.process.signal(signal.SIGSTOP)
    waiting = [asyncio.create_task(collect(engine, decode(f"{n}", 5))) for n in range(4)]
    last = [event async for event in began][-1]
    if isinstance(last, FailedEvent):  # it may have been done before it was stopped
        assert isinstance(last.error, EngineLost)
        assert not engine.stats().is_alive
    for events in await asyncio.wait_for(asyncio.gather(*waiting), END_S):
        assert isinstance(events[-1], FinishedEvent), "what had delivered nothing begins again"
    assert engine.process.pid != before
    assert engine.stats().losses == 1
    await engine.close()


async def test_killed_at_random_points_no_job_is_without_its_one_end(checkpoints: dict[str, Path]) -> None:
    source = random.Random(11)
    engine = ChildEngine.start(EngineSettings(slots=8, threads=1, event_queue=16), log_level="error")
    spec = ModelSpec(id="tiny-gpt2", folder=str(checkpoints["tiny-gpt2"]), head=Head.GENERATE)
    loading = asyncio.create_task(engine.load(spec))
    await asyncio.sleep(source.random() * 0.5)
    kill_engine(engine)  # at its start
    await asyncio.wait_for(loading, END_S)
    expected = [
        i for event in await collect(engine, decode("whole", 40)) if isinstance(event, TokenEvent) for i in event.ids
    ]
    for attempt in range(2):
        jobs = [asyncio.create_task(collect(engine, decode(f"{attempt}-{n}", 40))) for n in range(40)]
        await asyncio.sleep(source.random() * 0.1)
        await engine.cancel(f"{attempt}-7")
        kill_engine(engine)
        for events in await asyncio.wait_for(asyncio.gather(*jobs), END_S):
            *before, last = events
            found = [i for event in before if isinstance(event, TokenEvent) for i in event.ids]
            assert found == expected[: len(found)], "nothing is delivered twice"
            if isinstance(last, FailedEvent):
                assert isinstance(last.error, EngineLost)
                assert last.usage.output_tokens == len(found)
            else:
                assert isinstance(last, FinishedEvent)
                assert len(found) == 40 or last.reason is FinishReason.CANCELLED
        await asyncio.wait_for(engine.load(spec), END_S)  # it waits for the next life
    assert engine.stats().is_alive
    await engine.close()


async def test_a_process_that_dies_at_every_start_is_started_ever_more_slowly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR)
    kept = KeptProcess(
        name="the engine", command=(sys.executable, "-S", "-c", "raise SystemExit(3)"), environment=dict(os.environ)
    )
    kept.start()
    async with asyncio.timeout(END_S):
        while len(caplog.records) < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await kept.close(timeout_s=1)
    said = [record.getMessage() for record in caplog.records]
    waits = ("0.1", "0.2", "0.4", "0.8")
    assert said[:4] == [f"the engine ended with exit code 3; it starts again in {wait} s" for wait in waits]


async def test_two_workers_share_one_engine_and_none_outlives_the_parent(
    tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    async with workers(tmp_path, checkpoints) as (parent, client, database):
        engine, first, second = await family(parent.pid)
        body = {"model": "tiny-gpt2", "prompt": "one", "max_tokens": 60, "n": 4, "stream": True, "ignore_eos": True}

        async def stream() -> str:
            await asyncio.sleep(random.random() * 0.3)
            async with client.stream("POST", "/v1/completions", json=body) as answer:
                return [line async for line in answer.aiter_lines() if line][-1]

        async def by_replica(table: Table) -> dict[str, list[str]]:
            """Request ids and outcomes of the ledger's open or closed rows."""
            found: dict[str, list[str]] = {}
            for row in await database.run(lambda connection: connection.execute(select(table)).mappings().all()):
                found.setdefault(row["replica_id"], []).append(row.get("outcome", "open"))
            return found

        streams = [asyncio.create_task(stream()) for _ in range(16)]
        for attempt in range(1000):
            if len(await by_replica(hold)) == 2:
                break
            if attempt % 20 == 19:  # one worker took all so far: the other may not have listened yet
                streams.append(asyncio.create_task(stream()))
            await asyncio.sleep(0.005)
        os.kill(first, signal.SIGKILL)
        ends = await asyncio.wait_for(asyncio.gather(*streams, return_exceptions=True), END_S)
        again = [found for found in await family(parent.pid) if found not in (engine, second)]
        assert len(again) == 1 and again != [first], "the worker is started again, the engine is the same"
        deadline_s = time.monotonic() + END_S
        while await by_replica(hold):
            assert time.monotonic() < deadline_s, "the restarted worker settles what it left open"
            await asyncio.sleep(0.05)
        outcomes = await by_replica(usage_entry)
        assert sorted(outcomes) == ["local.1", "local.2"], "both have served"
        (untouched,) = (found for found in outcomes.values() if set(found) == {"finished"})
        assert ends.count("data: [DONE]") >= len(untouched)
        assert all(isinstance(end, httpx.TransportError) or end == "data: [DONE]" for end in ends)
        parent.send_signal(signal.SIGKILL)
        await parent.wait()
        deadline_s = time.monotonic() + END_S
        while any(map(is_running, (engine, second, *again))):
            assert time.monotonic() < deadline_s, "a child outlives its parent"
            await asyncio.sleep(0.05)


@asynccontextmanager
async def workers(
    home: Path, checkpoints: dict[str, Path]
) -> AsyncGenerator[tuple[asyncio.subprocess.Process, httpx.AsyncClient, Database]]:
    """`tollgate serve --workers 2`, ready, and a client that never keeps a connection."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    env = os.environ | {
        "TOLLGATE_HOME": str(home), "TOLLGATE_ENGINE__SLOTS": "2", "TOLLGATE_ENGINE__THREADS": "1",
        "TOLLGATE_REGISTRY__CATALOGUE": str(write_catalogue(home, checkpoints, load="start")),
    }  # fmt: skip
    database = Database(home=home)
    await database.open()
    key = await make_key(database, home, name="first")
    words = ("serve", "--workers", "2", "--port", str(port), "--log-level", "error")
    parent = await asyncio.create_subprocess_exec(sys.executable, "-m", "app", *words, env=env)
    limits = httpx.Limits(max_keepalive_connections=0)
    headers = {"authorization": f"Bearer {key}"}
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers=headers, limits=limits, timeout=30
        ) as client:
            await until_ready(client)
            yield parent, client, database
    finally:
        if parent.returncode is None:
            parent.terminate()
            await parent.wait()
        await database.close()


async def until_ready(client: httpx.AsyncClient) -> None:
    """Until a worker says so."""
    give_up_s = time.monotonic() + 2 * END_S
    while time.monotonic() < give_up_s:
        with suppress(httpx.TransportError):
            if (await client.get("/readyz")).status_code == 200:
                return
        await asyncio.sleep(0.02)
    raise AssertionError("the workers do not become ready")


async def family(parent: int) -> tuple[int, int, int]:
    """The engine and the two workers, once all three run."""
    give_up_s = time.monotonic() + END_S
    while time.monotonic() < give_up_s:
        named = children_of(parent)
        engines = [pid for pid, line in named.items() if b"app.engine.transports.worker" in line]
        others = [pid for pid, line in named.items() if b"app.cli.workers" in line]
        if len(engines) == 1 and len(others) == 2:
            return engines[0], others[0], others[1]
        await asyncio.sleep(0.01)
    raise AssertionError("an engine and two workers should run")
