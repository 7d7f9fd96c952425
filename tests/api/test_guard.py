"""Connections that want to hurt, over real sockets: each is refused or closed in time, and an honest one is served."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from app.api.guard import guarded
from app.api.settings import ApiSettings
from tests.fixtures.server import PATIENCE_S

HEAD_S, BODY_S = 0.6, 0.8
DRIP_S = 0.07
SETTINGS = ApiSettings(
    connections_max=8, header_bytes_max=2048, headers_max=20, header_timeout_s=HEAD_S, body_timeout_s=BODY_S
)
HEAD = b"POST / HTTP/1.1\r\nhost: x\r\n"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the length of the body."""
    assert scope["type"] == "http"
    try:
        body = await Request(scope, receive).body()
    except ClientDisconnect:
        return
    await PlainTextResponse(str(len(body)))(scope, receive, send)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    config = uvicorn.Config(echo, port=0, log_config=None, access_log=False, lifespan="off", http=guarded(SETTINGS))
    made = uvicorn.Server(config)
    serving = asyncio.create_task(made.serve())
    while not made.started:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    yield made.servers[0].sockets[0].getsockname()[1]
    made.should_exit = True
    await serving


async def sent(port: int, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """All that comes until the server closes, which may be before everything was sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = b""

    async def read() -> None:
        nonlocal found
        with suppress(ConnectionError):  # what was sent on into a connection that is closed resets it
            while part := await reader.read(4096):
                found += part

    reading = asyncio.create_task(read())
    for part in parts:
        if reading.done():
            break
        writer.write(part)
        await asyncio.sleep(pause_s)
    await asyncio.wait_for(reading, PATIENCE_S)
    writer.close()
    return found


async def test_an_honest_request_is_served_in_pieces_and_again_on_the_same_connection(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(2):
        for part in (HEAD[:9], HEAD[9:] + b"content-length: 3\r\n\r\na", b"b", b"c"):
            writer.write(part)
            await asyncio.sleep(0.05)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert await reader.readexactly(1) == b"3"
        await asyncio.sleep(1.2 * HEAD_S)  # idle for longer than a head may take: a kept connection may
    writer.close()


async def test_a_head_that_drips_is_refused_in_time(port: int) -> None:
    answer = await sent(port, HEAD, *(b"x-%d: y\r\n" % count for count in range(20)), pause_s=DRIP_S)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_timeout"


async def test_a_body_that_drips_is_refused_in_time(port: int) -> None:
    answer = await sent(port, HEAD + b"content-length: 100\r\n\r\n", *[b"x"] * 30, pause_s=DRIP_S)
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_connection_that_says_nothing_is_closed(port: int) -> None:
    assert await sent(port) == b""


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"x: " + b"y" * 4096,
        HEAD + b"x: " + b"y" * 4096 + b"\r\n\r\n",
        HEAD + b"".join(b"x-%d: y\r\n" % count for count in range(30)) + b"\r\n",
        b"GET /" + b"a" * 4096 + b" HTTP/1.1\r\n\r\n",
        HEAD + b"x: " + b"y" * 4096 + b"\r\ncontent-length: 3\r\n\r\nabc" + HEAD + b"\r\n",
    ],
    ids=["endless", "large", "many", "url", "with a body and another request"],
)
async def test_a_head_that_is_too_large_is_refused(port: int, head: bytes) -> None:
    answer = await sent(port, head)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert answer.count(b"HTTP/1.1") == 1


async def test_many_honest_requests_on_one_connection_do_not_add_up_to_a_large_head(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    one = HEAD + b"x: " + b"y" * 1000 + b"\r\ncontent-length: 1\r\n\r\nz"
    writer.write(one * 5)  # pipelined, in one piece
    for _ in range(5):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert await reader.readexactly(1) == b"1"
    writer.close()


async def test_connections_beyond_the_bound_are_told_to_come_later(port: int) -> None:
    held: list[Connection] = [await asyncio.open_connection("127.0.0.1", port) for _ in range(8)]
    await asyncio.sleep(0.05)
    answer = await sent(port, HEAD + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in answer
    for _, writer in held:
        writer.close()
    await asyncio.sleep(0.05)
    assert (await sent(port, HEAD + b"connection: close\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
