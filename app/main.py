"""Puts the rooms together: the only place that knows all of them. Binds first, loads after."""

import asyncio
import logging
import shutil
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app import __version__
from app.admission.authenticate import Authenticator
from app.admission.gate import Gate
from app.admission.limits import Limits, Shared
from app.api import (
    deepl,
    estimate,
    health,
    huggingface,
    libretranslate,
    models,
    native,
    open_inference,
    openai,
    operators,
    receipts,
    usage,
)
from app.api.access import AccessLog
from app.api.admin_acting import Desk
from app.api.context import NO_ROUTE, request_id_of
from app.api.disconnect import ClientGone
from app.api.errors import REFUSALS, answer_of
from app.api.huggingface.model_paths import ModelPaths
from app.api.replay import Idempotency, Replays
from app.clock import Clock, SystemClock
from app.delivery.outgoing import Outgoing
from app.engine.client import EngineClient, LaneStats
from app.engine.transports.child import ChildEngine
from app.errors import InvalidRequest, NotFound, TollgateError
from app.metering.books import Books
from app.metering.database import Database
from app.metering.keys import Pepper
from app.metering.partitions import keep_months
from app.metering.replica import journal_folder, name_of, workers_of
from app.metering.replicas import recover_lost
from app.metering.sweeper import Sweeper
from app.observability.distribution import Distribution
from app.observability.metrics import Labelled, Metrics
from app.observability.process import sample_for_ever, watch_process
from app.observability.scrape import Scrape
from app.observability.traces import traces_of
from app.registry.catalogue import SHIPPED, Catalogue, load_catalogue
from app.registry.model import LoadPolicy
from app.registry.residency import Place, Residency, State
from app.serving import Serving
from app.settings import Settings

log = logging.getLogger(__name__)
CLOSED_REQUEST = 499
DESCRIPTION = "Hosted models behind a key: every token is scheduled fairly, streamed at once and counted once."


def build_app(
    settings: Settings, *, worker: int | None = None, engine_socket: Path | None = None, limits_file: Path | None = None
) -> FastAPI:
    """The application, not yet started. Raises CatalogueError when the catalogue is wrong.

    `worker` numbers the process where several serve together; `engine_socket` is of the engine that they share, and
    `limits_file` what they count rate limits in.
    """
    chosen = settings.registry
    catalogue = load_catalogue(chosen.catalogue or SHIPPED, enable=chosen.enable, disable=chosen.disable)
    counted = None if worker is None or limits_file is None else Shared(limits_file, worker)
    lifespan = lifespan_of(settings, catalogue, worker=worker, engine_socket=engine_socket, counted=counted)
    app = FastAPI(title="Tollgate", version=__version__, description=DESCRIPTION, lifespan=lifespan)
    app.state.settings = settings
    app.state.traces = traces_of(settings.observability, version=__version__)
    rooms = (
        openai, native, models, estimate, receipts, usage, *operators.ROOMS, health,
        deepl, libretranslate, open_inference, *huggingface.ROOMS,
    )  # fmt: skip
    for room in rooms:
        app.include_router(room.router, responses=REFUSALS)
    metering = settings.metering
    app.state.replays = Replays(bytes_max=metering.replay_bytes, kept_s=metering.replay_s)
    app.add_middleware(ModelPaths)
    app.add_middleware(Idempotency, replays=app.state.replays, body_bytes_max=settings.api.body_bytes_max)
    app.add_middleware(AccessLog)
    app.add_exception_handler(HTTPException, as_envelope)
    for kind in (TollgateError, ClientGone, ClientDisconnect, RequestValidationError, Exception):
        app.add_exception_handler(kind, as_envelope)
    return app


def lifespan_of(
    settings: Settings, catalogue: Catalogue, *, worker: int | None, engine_socket: Path | None, counted: Shared | None
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """What runs from the application's start to its end: the rooms, and their loops in one task group."""
    chosen = settings.registry

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        clock = SystemClock()
        database = open_database(settings)
        await database.open()
        engine = open_engine(settings, engine_socket, clock)
        metrics = Metrics()
        residency = Residency(catalogue=catalogue, engine=engine, settings=chosen, home=settings.home, clock=clock)
        pepper = Pepper(settings.home)
        app.state.desk = Desk(database, clock, pepper)
        authenticator = Authenticator(database=database, pepper=pepper, clock=clock)
        limits = Limits(settings=settings.limits, clock=clock, metrics=metrics, workers=counted)
        books, sweeper = keepers(settings, database, clock, worker=worker)
        gate = Gate(books=books)
        outgoing = Outgoing(database=database, pepper=pepper, clock=clock, metrics=metrics, settings=settings)
        app.state.serving = serving = Serving(
            authenticator=authenticator, residency=residency, limits=limits, gate=gate, engine=engine, clock=clock,
            metrics=metrics, timeout_s=settings.api.request_timeout_s, queue_wait_s=settings.api.queue_wait_s,
            replica_id=books.replica_id, books=books,
        )  # fmt: skip
        watch(metrics, serving)
        metrics.gauge("tollgate_data_free_bytes", lambda: float(shutil.disk_usage(settings.home).free))
        app.state.scrape = Scrape(metrics, boards=settings.observability.metrics_compat)
        if worker is None:
            await settle_leftovers(settings, database)
        tell_of_lost(await books.start())
        loops = (
            authenticator.run, *books.loops, *outgoing.loops, limits.run, lambda: keep_months(database, clock),
            *([sweeper.run] if sweeper.has_company else []),
        )  # fmt: skip
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(for_ever(loop)) for loop in loops]
                tasks += [group.create_task(load_models(serving)), group.create_task(sample_for_ever(metrics))]
                try:
                    yield
                finally:
                    for task in tasks:
                        task.cancel()
        finally:
            await outgoing.close()
            await engine.close()
            with suppress(TollgateError):
                await books.drain()
                await sweeper.leave()
            books.close()
            await limits.close()
            with suppress(TollgateError):
                await authenticator.note_uses()
            await database.close()
            await asyncio.to_thread(app.state.traces.close)

    return lifespan


def open_engine(settings: Settings, socket: Path | None, clock: Clock) -> EngineClient:
    """The engine as the settings want it. With the child transport this process never imports torch."""
    if socket is not None:
        return ChildEngine(settings=settings.engine, socket=socket)
    if settings.engine.transport == "child":
        return ChildEngine.start(settings.engine, log_level=settings.log_level, log_format=settings.log_format)
    from app.engine.transports.inline import InlineEngine  # here, because it brings torch

    return InlineEngine(settings=settings.engine, clock=clock)


def open_database(settings: Settings) -> Database:
    """The database as the settings want it, not yet opened."""
    chosen = settings.metering
    return Database(home=settings.home, url=chosen.opened_url, connections=chosen.connections)


def keepers(settings: Settings, database: Database, clock: Clock, *, worker: int | None) -> tuple[Books, Sweeper]:
    """Who keeps this process's books, and who looks after those of dead ones."""
    chosen, folder = settings.metering, journal_folder(settings.home, worker)
    replica = name_of(settings.home, is_shared=database.is_shared, worker=worker)
    share = chosen.escrow_share if database.is_shared else 0.0
    books = Books(database=database, home=folder, clock=clock, replica_id=replica, escrow_share=share)
    sweeper = Sweeper(
        database=database, clock=clock, replica_id=replica, folder=folder, dead_after_s=chosen.dead_after_s,
        has_company=database.is_shared or worker is not None,
    )  # fmt: skip
    return books, sweeper


async def settle_leftovers(settings: Settings, database: Database) -> None:
    """Settle what any process of an earlier run left in its journal, worker or not; none may run now."""
    lost, clock = 0, SystemClock()
    for worker in (None, *workers_of(settings.home)):
        name = name_of(settings.home, is_shared=database.is_shared, worker=worker)
        folder = journal_folder(settings.home, worker)
        books = Books(database=database, home=folder, clock=clock, replica_id=name)
        lost += await books.start()
        books.close()
    name = name_of(settings.home, is_shared=database.is_shared)
    lost += await database.run(lambda connection: recover_lost(connection, replica_id=name, clock=clock))
    tell_of_lost(lost)


def tell_of_lost(count: int) -> None:
    """Say how many requests a crash cut off."""
    if count:
        log.warning("%d requests were running when the server last died; they are settled as crashed", count)


def watch(metrics: Metrics, serving: Serving) -> None:
    """What is read when metrics are asked for."""
    engine, residency = serving.engine, serving.residency

    def of_lanes(read: Callable[[LaneStats], float | Distribution]) -> Callable[[], Labelled]:
        return lambda: {(lane.model,): read(lane) for lane in engine.stats().lanes}

    def of_models(read: Callable[[Place], float]) -> Callable[[], Labelled]:
        return lambda: {(place.model.id,): read(place) for place in residency.places}

    watch_process(metrics)
    metrics.gauge("tollgate_ready", lambda: float(serving.reason_unready is None))
    metrics.gauge("tollgate_spool_waiting", lambda: float(serving.books.spooled))
    metrics.gauge("tollgate_engine_up", lambda: float(engine.stats().is_alive))
    metrics.gauge("tollgate_engine_resident_memory_bytes", lambda: engine.stats().resident_bytes)
    metrics.gauge("tollgate_engine_losses", lambda: engine.stats().losses)
    metrics.gauge("tollgate_num_requests_running", of_lanes(lambda lane: lane.running))
    metrics.gauge("tollgate_num_requests_waiting", of_lanes(lambda lane: lane.waiting))
    metrics.gauge("tollgate_kv_cache_usage_perc", of_lanes(lambda lane: lane.kv_usage))
    metrics.gauge("tollgate_prefix_cache_queries", of_lanes(lambda lane: lane.prompt_tokens))
    metrics.gauge("tollgate_prefix_cache_hits", of_lanes(lambda lane: lane.reused_tokens))
    metrics.gauge("tollgate_iteration_tokens_total", of_lanes(lambda lane: lane.step_tokens))
    metrics.gauge("tollgate_iteration_rows", of_lanes(lambda lane: lane.step_rows))
    metrics.gauge("tollgate_iteration_duration_seconds", of_lanes(lambda lane: lane.step_seconds))
    metrics.gauge("tollgate_model_resident", of_models(lambda place: place.resident is not None))
    metrics.gauge("tollgate_model_loaded_bytes", of_models(lambda place: place.memory_bytes))


async def load_models(serving: Serving) -> None:
    """Load what the catalogue wants from the start, then say that the start is over, and with what."""
    began_s = time.monotonic()
    await serving.residency.load_at_start()
    serving.is_started = True
    places = [place for place in serving.residency.places if place.model.load is LoadPolicy.START]
    failed = [place.model.id for place in places if place.state is State.FAILED]
    log.log(
        logging.ERROR if failed else logging.INFO, "started in %.1f s: %d of %d models loaded%s",
        time.monotonic() - began_s, len(places) - len(failed), len(places),
        f"; not {', '.join(failed)}: see above" if failed else "",
    )  # fmt: skip


async def for_ever(work: Callable[[], Awaitable[None]]) -> None:
    """Run a loop again when it fails (a database that is away for a while), with a pause."""
    while True:
        try:
            await work()
        except TollgateError as error:
            log.warning("%s", error.message)
        await asyncio.sleep(1.0)


async def as_envelope(request: Request, error: Exception) -> Response:
    """Every failure in the one envelope, with the request's id. A bug is logged with its trace, and tells nothing."""
    if isinstance(error, ClientGone | ClientDisconnect):
        return Response(status_code=CLOSED_REQUEST)
    if isinstance(error, HTTPException):
        known = {404: NotFound(NO_ROUTE)}
        shown = known.get(error.status_code) or InvalidRequest(str(error.detail))
        answer = answer_of(shown)
        return JSONResponse(answer.body, error.status_code, {**answer.headers, **(error.headers or {})})
    if isinstance(error, RequestValidationError):
        fault = error.errors()[0]
        error = InvalidRequest(f"{fault['loc'][-1]}: {fault['msg']}", field=str(fault["loc"][-1]))
    if not isinstance(error, TollgateError):
        log.error("request %s failed", request_id_of(request), exc_info=error)
    elif error.kind in ("internal", "operator"):
        log.error("request %s failed: %s", request_id_of(request), error.message)
    answer = answer_of(error)
    return JSONResponse(answer.body, answer.status, answer.headers | {"x-request-id": request_id_of(request)})
