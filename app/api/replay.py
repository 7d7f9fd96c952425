"""Idempotency-Key on every POST: the first answer is given again, and nothing runs or is charged twice.

The claim on a key is durable and shared by replicas. The answer itself is kept in memory only, for a short while and up
to a bound, because outputs are not stored: later the same key gets 409 and the receipt's address. While the database is
away a replica knows its own claims only; the entry of what runs then brings its claim in, or costs nothing. Plain ASGI.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.body import read_bytes
from app.api.context import admitted, presented_key, request_id_of, serving_of
from app.api.forms import form_of
from app.api.libretranslate import KEYED, key_of
from app.errors import (
    IdempotencyInProgress,
    IdempotencyMismatch,
    InvalidRequest,
    ReplayUnavailable,
    StorageUnavailable,
    TollgateError,
)
from app.metering.books import Books
from app.metering.database import microseconds
from app.metering.idempotency import Claim, claim, fingerprint_of, finish, hash_of, let_go

log = logging.getLogger(__name__)
KEY_LENGTH_MAX = 255
ANSWER_BYTES_MAX = 2**20
OWN_RECORD = frozenset({"/admin/top-ups"})
"""Routes that keep in the database, for ever, what was done under a key."""
OWN_MAX = 10_000
OWN_S = 3600.0
"""How many claims a replica remembers, and for how long."""
Place = tuple[str, str]
DROPPED = frozenset({b"x-request-id", b"date", b"server"})


@dataclass(slots=True)
class Recorded:
    """An answer as it went out."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list[tuple[bytes, bytes]])
    parts: list[bytes] = field(default_factory=list[bytes])
    size: int = 0
    is_whole: bool = False
    kept_s: float = 0.0

    def note(self, message: Message) -> None:
        """Take in what is being sent; an answer beyond the bound is let go of."""
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message.get("headers", ()))
        elif message["type"] == "http.response.body":
            self.size += len(message.get("body", b""))
            if self.size <= ANSWER_BYTES_MAX:
                self.parts.append(message.get("body", b""))
            else:
                self.parts.clear()
            self.is_whole = not message.get("more_body", False)


@dataclass(slots=True)
class Own:
    """A claim of this replica's own."""

    request_id: str
    fingerprint: str
    is_late: bool
    """Taken while the database was away."""
    since_s: float
    is_done: bool = False

    @property
    def found(self) -> Claim:
        """As somebody else who comes with the key finds it."""
        return Claim(
            request_id=self.request_id, fingerprint=self.fingerprint, is_mine=False, is_done=self.is_done
        )  # fmt: skip


class OwnClaims:
    """The newest of them by place, a tenant's key: what is known of keys while the database is away."""

    def __init__(self) -> None:
        self._claims: OrderedDict[Place, Own] = OrderedDict()

    def find(self, place: Place) -> Own | None:
        """Who had the key here lately."""
        while self._claims:
            first, oldest = next(iter(self._claims.items()))
            if len(self._claims) <= OWN_MAX and oldest.since_s > time.monotonic() - OWN_S:
                break
            del self._claims[first]
        return self._claims.get(place)

    def note(self, place: Place, *, request_id: str, fingerprint: str, is_late: bool) -> None:
        """A request of this replica has it."""
        self._claims.pop(place, None)
        self._claims[place] = Own(request_id, fingerprint, is_late, time.monotonic())

    def end(self, place: Place, request_id: str, *, is_free: bool) -> None:
        """The request was answered, or leaves its key free."""
        own = self._claims.get(place)
        if own is not None and own.request_id == request_id:
            own.is_done = True
            if is_free:
                del self._claims[place]


class Replays:
    """Answers by the id of the request that made them, the oldest going first."""

    def __init__(self, *, bytes_max: int, kept_s: float) -> None:
        self._bytes_max = bytes_max
        self._kept_s = kept_s
        self._answers: OrderedDict[str, Recorded] = OrderedDict()
        self._size = 0

    def keep(self, request_id: str, answer: Recorded) -> None:
        """Remember an answer."""
        if answer.size <= min(ANSWER_BYTES_MAX, self._bytes_max) and self._kept_s:
            answer.kept_s = time.monotonic()
            self._answers[request_id] = answer
            self._size += answer.size
        self._forget()

    def find(self, request_id: str) -> Recorded | None:
        """The answer, if it is still kept."""
        self._forget()
        return self._answers.get(request_id)

    def forget_all(self) -> None:
        """As if their time had passed."""
        self._answers.clear()
        self._size = 0

    def _forget(self) -> None:
        oldest_s = time.monotonic() - self._kept_s
        while self._answers:
            first = next(iter(self._answers.values()))
            if self._size <= self._bytes_max and first.kept_s >= oldest_s:
                return
            self._size -= first.size
            self._answers.popitem(last=False)


class Idempotency:
    """See the module."""

    def __init__(self, app: ASGIApp, *, replays: Replays, body_bytes_max: int) -> None:
        self._app = app
        self._replays = replays
        self._body_bytes_max = body_bytes_max
        self._own = OwnClaims()
        self._owed: dict[str, Callable[[Any], None]] = {}
        """Ends of claims that the database was away for, by request: the next claim brings them in."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the module."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] in OWN_RECORD:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        key = request.headers.get("idempotency-key")
        if key is None:
            await self._app(scope, receive, send)
            return
        body = b""
        try:
            if not 0 < len(key) <= KEY_LENGTH_MAX:
                raise InvalidRequest(f"an Idempotency-Key has 1 to {KEY_LENGTH_MAX} characters")
            if is_keyed_by_body(request):
                body = await read_bytes(request, self._body_bytes_max)
                sent = form_of(request, body, has_query=True)
                tenant_id = (await admitted(request, key_in_body=key_of(sent))).tenant_id
            else:
                tenant_id = (await admitted(request)).tenant_id
                body = await read_bytes(request, self._body_bytes_max)
            found = await self._claim(request, tenant_id, key, body)
        except TollgateError as error:
            request.state.refused = error
            await self._app(scope, again(body, receive), send)
            return
        if found.is_mine:
            await self._run(request, tenant_id, key, body, receive, send)
        else:
            await replay(self._replays.find(found.request_id), found.request_id, scope, receive, send)

    async def _claim(self, request: Request, tenant_id: str, key: str, body: bytes) -> Claim:
        """Raises IdempotencyMismatch, IdempotencyInProgress or ReplayUnavailable when there is nothing to do."""
        serving = serving_of(request)
        query: bytes = request.scope["query_string"]
        asked = request.scope["path"] + ("?" + query.decode("latin-1") if query else "")
        fingerprint, request_id = fingerprint_of(key, path=asked, body=body), request_id_of(request)
        place, owed = (tenant_id, hash_of(key)), dict(self._owed)

        def work(connection: Any) -> Claim:
            for end in owed.values():
                end(connection)
            return claim(
                connection, tenant_id=tenant_id, key=key, fingerprint=fingerprint, request_id=request_id,
                replica_id=serving.books.replica_id, at_us=microseconds(serving.clock.now()),
            )  # fmt: skip

        mine = Claim(request_id=request_id, fingerprint=fingerprint, is_mine=True, is_done=False)
        found, is_late = await self._holder(serving.books, place, work, mine)
        for name in () if is_late else owed:
            self._owed.pop(name, None)
        if found.is_mine:
            self._own.note(place, request_id=request_id, fingerprint=fingerprint, is_late=is_late)
            if is_late and (run := serving.runs.find(request_id)) is not None:
                run.once = (place[1], fingerprint)
        if found.fingerprint != fingerprint:
            raise IdempotencyMismatch
        if not found.is_mine and self._replays.find(found.request_id) is None:
            if not found.is_done:
                raise IdempotencyInProgress
            raise ReplayUnavailable(
                "The first answer under this Idempotency-Key is no longer kept. Its receipt: GET /v1/requests/"
                f"{found.request_id}. Use a fresh key to run it again."
            )
        return found

    async def _holder(
        self, books: Books, place: Place, work: Callable[[Any], Claim], mine: Claim
    ) -> tuple[Claim, bool]:
        """Who has the key, and whether only this replica says so: `mine` if it knows of nobody."""
        own = self._own.find(place)
        if own is not None and own.is_late:
            return own.found, True
        try:
            return await books.reach(work), False
        except StorageUnavailable:
            return (mine if own is None else own.found), True

    async def _run(self, request: Request, tenant_id: str, key: str, body: bytes, receive: Receive, send: Send) -> None:
        """Run the request, and keep what it answers."""
        recorded = Recorded()

        async def noted(message: Message) -> None:
            recorded.note(message)
            await send(message)

        serving, request_id = serving_of(request), request_id_of(request)
        try:
            await self._app(request.scope, again(body, receive), noted)
        finally:
            is_refused = recorded.status >= 400
            if recorded.status == 200 and recorded.is_whole:
                self._replays.keep(request_id, recorded)
            named = {"request_id": request_id, "tenant_id": tenant_id, "key": key}
            end = partial(let_go if is_refused else finish, **named)
            self._own.end((tenant_id, hash_of(key)), request_id, is_free=is_refused or not recorded.status)
            try:
                await serving.books.reach(end)
            except StorageUnavailable:
                self._owed[request_id] = end
                log.warning("request %s: its Idempotency-Key is in progress until the database is back", request_id)


def is_keyed_by_body(request: Request) -> bool:
    """Whether whoever asks is known by a field of the body alone."""
    return request.scope["path"] in KEYED and presented_key(request) is None


def again(body: bytes, receive: Receive) -> Receive:
    """What gives a body that was read already, then what comes after it."""
    is_given = False

    async def given() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return given


async def replay(answer: Recorded | None, request_id: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a kept answer again; it went out whole, so its body is one piece."""
    assert answer is not None, "it was found a moment ago, in this task. This is a bug."
    headers = [pair for pair in answer.headers if pair[0].lower() not in DROPPED]
    headers += [(b"idempotency-replayed", b"true"), (b"x-tollgate-replay-of", request_id.encode())]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"".join(answer.parts), "more_body": False})
