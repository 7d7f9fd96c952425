"""What every route needs of a request: the caller's key and address, the request's id, and the rooms behind it."""

import ipaddress
import re
from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Request

from app.admission.authenticate import Principal, is_within
from app.api.conduct import timeout_of
from app.errors import NotAllowed, NotFound
from app.serving import Serving

CLIENT_ID = re.compile(r"[\x21-\x7e]{1,512}")
CLIENT_ID_HEADERS = ("x-request-id", "x-client-request-id")
NO_ROUTE = "There is nothing at this address; GET /docs lists the routes."
SCHEMES = ("bearer", "deepl-auth-key")


def serving_of(request: Request) -> Serving:
    """The road, put into the application's state by main.py."""
    return request.app.state.serving


def presented_key(request: Request) -> str | None:
    """The key as clients send it: `Authorization: Bearer` or `DeepL-Auth-Key`, or `x-api-key`.

    LibreTranslate's clients send a field `api_key`: its dialect gives it to `authenticated`.
    """
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() in SCHEMES and value.strip():
        return value.strip()
    return request.headers.get("x-api-key")


def peer_of(request: Request, trusted: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> str | None:
    """The caller's address: the peer's, or what trusted proxies say, read from the right to the first stranger."""
    peer = None if request.client is None else request.client.host
    hops = [hop.strip() for line in request.headers.getlist("x-forwarded-for") for hop in line.split(",")]
    while hops and is_within(peer, tuple(trusted)):
        peer = hops.pop()
    return peer


def is_on_operators_port(request: Request) -> bool:
    """Whether the port that was asked is the operators'; where they have none of their own, every port is."""
    admin_port = request.app.state.settings.api.admin_port
    return admin_port is None or request.scope["server"][1] == admin_port


def is_from_operators(request: Request) -> bool:
    """Whether operators' routes and keys may be used from the caller's address, on the port that was asked."""
    api = request.app.state.settings.api
    if not is_on_operators_port(request):
        return False
    return not api.admin_networks or is_within(peer_of(request, api.trusted_proxies), tuple(api.admin_networks))


async def authenticated(request: Request, *, key_in_body: str | None = None) -> Principal:
    """Raises what Authenticator.authenticate does, and NotAllowed for an admin's key that is used where it may not be.

    Runs before the body is looked at. What was refused before any route was asked (`api/replay.py`) is raised here, for
    the dialect to dress.
    """
    if (refused := getattr(request.state, "refused", None)) is not None:
        raise refused
    peer = peer_of(request, request.app.state.settings.api.trusted_proxies)
    principal = await serving_of(request).authenticate(presented_key(request) or key_in_body, peer)
    if principal.is_admin and not is_from_operators(request):
        raise NotAllowed("This API key may not be used from this network address, or on this port.")
    return principal


async def caller(request: Request) -> Principal:
    """As `admitted`, for dialects whose key comes in a header."""
    return await admitted(request)


async def admitted(request: Request, *, key_in_body: str | None = None) -> Principal:
    """As `authenticated`; the request then has its deadline, and its answer tells how the key's limits stand."""
    principal = await authenticated(request, key_in_body=key_in_body)
    if (run := serving_of(request).runs.find(request_id_of(request))) is not None:
        run.timeout_s = timeout_of(request)
    request.state.principal = principal
    return principal


async def admin(request: Request) -> Principal:
    """Raises NotAllowed unless the key is an admin's, NotFound where there are no routes for operators."""
    if not is_from_operators(request):
        raise NotFound(NO_ROUTE)
    principal = await authenticated(request)
    principal.require_admin()
    return principal


def request_id_of(request: Request) -> str:
    """This request's own id, made once; the ledger's entry bears it."""
    if not hasattr(request.state, "request_id"):
        request.state.request_id = serving_of(request).new_request_id()
    return request.state.request_id


def client_id_of(request: Request) -> str | None:
    """The id that the client, or a proxy before us, gave the request; printable ASCII without spaces."""
    for name in CLIENT_ID_HEADERS:
        found = request.headers.get(name)
        if found is not None and CLIENT_ID.fullmatch(found):
            return found
    return None


async def rooms(request: Request) -> Serving:
    """As `serving_of`, for routes: FastAPI sends a dependency that is no coroutine to a thread and back."""
    return serving_of(request)


async def own_id(request: Request) -> str:
    """As `request_id_of`, for routes."""
    return request_id_of(request)


Caller = Annotated[Principal, Depends(caller)]
Admin = Annotated[Principal, Depends(admin)]
Rooms = Annotated[Serving, Depends(rooms)]
RequestId = Annotated[str, Depends(own_id)]
