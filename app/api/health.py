"""Probes and metrics, without a key: they tell nothing that a balancer may not know."""

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from app.api.context import NO_ROUTE, Rooms, is_on_operators_port
from app.errors import NotFound
from app.observability.scrape import CONTENT_TYPE
from app.registry.model import LoadPolicy
from app.registry.residency import State

router = APIRouter(tags=["health"])


@router.get("/livez", summary="Is the process alive")
async def livez() -> dict[str, str]:
    """200 as long as the event loop turns."""
    return {"status": "alive"}


@router.get("/startupz", summary="Is the start over")
async def startupz(serving: Rooms) -> JSONResponse:
    """200 once every model of the start was loaded or has failed; until then 503 with how far it is."""
    places = serving.residency.places
    wanted = [place for place in places if place.model.load is LoadPolicy.START]
    loading = next((place.model.id for place in places if place.state is State.LOADING), None)
    if serving.is_started:
        phase = "started"
    else:
        phase = "loading models" if serving.engine.stats().is_alive else "starting the engine"
    body = {
        "phase": phase, "model": loading, "models": len(wanted),
        "models_loaded": sum(place.state is State.RESIDENT for place in wanted),
        "models_failed": sum(place.state is State.FAILED for place in wanted),
        "elapsed_s": round(serving.clock.monotonic_s() - serving.began_s, 3),
    }  # fmt: skip
    return JSONResponse(body, 200 if serving.is_started else 503)


@router.get("/health", summary="The same, under the name that vLLM's, TGI's and TEI's clients look up")
@router.get("/readyz", summary="Should requests be sent here")
async def readyz(serving: Rooms) -> JSONResponse:
    """200 when models are loaded, the engine lives and the server does not shut down."""
    reason = serving.reason_unready
    return JSONResponse({"status": reason or "ready"}, 503 if reason else 200)


@router.get("/metrics", response_class=PlainTextResponse, summary="Prometheus metrics")
async def metrics(request: Request) -> Response:
    """All series in Prometheus' text format; of all processes, whichever answers."""
    if not is_on_operators_port(request):
        raise NotFound(NO_ROUTE)
    text = await asyncio.to_thread(request.app.state.scrape.text)
    return Response(text, media_type=CONTENT_TYPE)
