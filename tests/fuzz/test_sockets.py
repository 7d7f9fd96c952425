"""Requests with bytes overwritten, cut out and put in, sent to a real server: refused or answered, never a 500."""

import asyncio
import json
import socket
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

from tests.fixtures.server import Running
from tests.fuzz.test_parsers import hold, mutated

HOW_MANY = [20, pytest.param(800, marks=[pytest.mark.fault_long, pytest.mark.timeout(900)])]
INFER = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 9}}]}
WAIT_S = 0.2
CALLS = {
    "completions": ("POST /v1/completions", "application/json", b'{"model":"tiny-gpt2","prompt":[5],"max_tokens":2}'),
    "form": ("POST /translate?format=text", "application/x-www-form-urlencoded", b"q=hello&source=en&target=de"),
    "deepl": ("POST /v2/translate?a=%20b", "application/json", b'{"text":["hello"],"target_lang":"DE"}'),
    "tensors": ("POST /v2/models/tiny-bert-classifier/infer", "application/json", json.dumps(INFER).encode()),
    "once": ("POST /v1/classifications?b", "application/json", b'{"model":"tiny-bert-classifier","input":"a"}'),
    "usage": ("GET /v1/usage?start_time=1764000000&limit=3", "application/json", b""),
}


def text_of(name: str, key: str) -> bytes:
    """A whole request, as it goes over the wire."""
    line, kind, body = CALLS[name]
    more = f"Inference-Header-Content-Length: {len(body)}\r\n" if name == "tensors" else ""
    more += "Idempotency-Key: one\r\n" if name == "once" else ""
    body += b"\x05\0\0\0hello" if name == "tensors" else b""
    head = f"{line} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Type: {kind}\r\n{more}"
    return f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize("count", HOW_MANY)
@pytest.mark.parametrize("name", CALLS)
async def test_a_damaged_request_is_never_our_fault(server: Running, name: str, count: int) -> None:
    whole = text_of(name, server.key)
    port = urlsplit(server.url).port

    def answered(sent: bytes, timeout_s: float) -> bytes:
        """What comes back until the server closes, or waits for more than was sent."""
        found = b""
        with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection, suppress(OSError):
            connection.sendall(sent)
            while part := connection.recv(65536):
                found += part
        return found

    def ask(sent: bytes) -> None:
        assert b"HTTP/1.1 500" not in (answer := answered(sent, WAIT_S)), (sent, answer)

    assert (await asyncio.to_thread(answered, whole, 30.0)).startswith(b"HTTP/1.1 200")
    await asyncio.to_thread(hold, ask, mutated(whole), count)
