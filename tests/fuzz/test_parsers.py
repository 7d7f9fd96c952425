"""Every parser that a stranger, a customer or an operator reaches, given noise and what is almost right.

It returns what it read, or refuses as the caller's fault. `make test-faults` does the same with thousands of cases.
"""

import asyncio
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from app.admission.authenticate import is_within
from app.api.body import model_of, read_object
from app.api.conduct import shown_names, timeout_of
from app.api.context import client_id_of, peer_of, presented_key
from app.api.forms import read_form
from app.api.settings import ApiSettings
from app.api.tensors import HEADER_LENGTH, InferBody, Tensor, read_parts, texts_of, unpacked
from app.delivery.addresses import checked_url
from app.errors import Kind, TollgateError
from app.metering.keys import checked_networks, is_well_formed, make_key
from app.metering.ledger import Admission, Outcome, Usage
from app.metering.moments import instant_us, span_us
from app.metering.money import decimal_text, nano_of, pico_of
from app.metering.spool import SPOOL_NAME, Settlement, Spool
from app.registry.catalogue import SHIPPED, load_catalogue
from app.settings import load_settings

HOW_MANY = [60, pytest.param(5000, marks=[pytest.mark.fault_long, pytest.mark.timeout(600)])]
FAULTS = (Kind.INVALID, Kind.TOO_LARGE, Kind.OPERATOR)
WORDS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=60)
NUMBERS = st.one_of(
    WORDS, st.integers().map(str), st.floats().map(str), st.sampled_from([9, 99, 9999]).map("9".__mul__)
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=20,
)


def hold(rule: Callable[[Any], object], cases: st.SearchStrategy[Any], count: int) -> None:
    """Try `rule` on so many cases."""

    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(cases)
    def case(found: Any) -> None:
        try:
            rule(found)
        except TollgateError as error:
            assert error.kind in FAULTS and error.message, error

    case()


def request_of(headers: dict[str, str], body: bytes = b"", query: bytes = b"") -> Request:
    """A request as the server makes it."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    state = SimpleNamespace(settings=SimpleNamespace(api=ApiSettings(body_bytes_max=2**16)))
    scope = {
        "type": "http", "method": "POST", "path": "/", "query_string": query, "client": ("127.0.0.1", 1),
        "app": SimpleNamespace(state=state), "server": ("127.0.0.1", 80),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
    }  # fmt: skip
    return Request(scope, receive)


def mutated(text: bytes) -> st.SearchStrategy[bytes]:
    """The text with a few places overwritten, cut out or put in."""
    change = st.tuples(st.integers(0, len(text)), st.integers(0, 6), st.binary(max_size=6))

    def change_all(changes: list[tuple[int, int, bytes]]) -> bytes:
        found = text
        for place, gone, new in changes:
            found = found[:place] + new + found[place + gone :]
        return found

    return st.lists(change, min_size=1, max_size=4).map(change_all)


@pytest.mark.parametrize("count", HOW_MANY)
def test_headers(count: int) -> None:
    names = ("authorization", "x-api-key", "x-forwarded-for", "x-request-id", "x-request-timeout", "content-length")
    headers = st.fixed_dictionaries({}, optional={name: NUMBERS for name in (*names, "x-request-timeout-ms")})

    def read(found: dict[str, str]) -> None:
        request = request_of(found)
        presented_key(request)
        client_id_of(request)
        peer_of(request, ApiSettings.model_validate({"trusted_proxies": ["0.0.0.0/0", "::/0"]}).trusted_proxies)
        asyncio.run(read_form(request))
        timeout_of(request)

    hold(read, headers, count)
    hold(lambda names: shown_names(names).encode("ascii"), st.lists(st.text(max_size=80), max_size=30), count)


@pytest.mark.parametrize("count", HOW_MANY)
def test_json_and_forms(count: int) -> None:
    kinds = st.sampled_from(["application/json", "application/x-www-form-urlencoded", "multipart/form-data", "a;b=c"])
    bodies = st.one_of(
        st.binary(max_size=200), JSON.map(lambda one: json.dumps(one).encode()),
        mutated(b'{"inputs": "hello", "parameters": {"top_k": 3, "nan": 1e400}}'),
        mutated(b"text=a%20b&text=c&target=de"),
        st.integers(1, 20_000).map(lambda depth: b'{"a": ' + b"[" * depth),
        st.integers(4000, 9000).map(lambda length: b'{"a": ' + b"9" * length + b"}"),
    )  # fmt: skip

    def read(found: tuple[str, bytes, bytes]) -> None:
        kind, body, query = found
        read_it = read_form(request_of({"content-type": kind}, body, query), lists=frozenset(("text",)), has_query=True)
        assert all(isinstance(name, str) for name in asyncio.run(read_it))

    hold(read, st.tuples(kinds, bodies, st.binary(max_size=80)), count)
    hold(lambda body: asyncio.run(read_object(request_of({}, body))), bodies, count)


@pytest.mark.parametrize("count", HOW_MANY)
def test_tensors_behind_json(count: int) -> None:
    packed = Tensor(name="text", datatype="BYTES", shape=(2,), values=("one", "zwei")).packed()
    one = {"name": "text", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(packed)}}
    head = json.dumps({"inputs": [one]}).encode()
    lengths = st.one_of(NUMBERS, st.just(str(len(head))))
    bodies = st.one_of(mutated(head + packed), mutated(packed).map(lambda raw: head + raw), st.binary(max_size=100))
    encodings = st.sampled_from(["identity", "gzip", "deflate", "br"])

    def read(found: tuple[str, bytes, str]) -> None:
        length, body, encoding = found
        request = request_of({HEADER_LENGTH: length, "content-encoding": encoding}, body)
        parts, behind = asyncio.run(read_parts(request))
        texts_of(model_of(request, parts, InferBody).inputs, ("text",), behind)

    hold(read, st.tuples(lengths, bodies, encodings), count)
    texts = st.lists(st.text(max_size=20), max_size=5).map(tuple)

    def goes_and_comes(values: tuple[str, ...]) -> None:
        raw = Tensor(name="t", datatype="BYTES", shape=(len(values),), values=values).packed()
        assert tuple(part.decode() for part in unpacked(raw)) == values

    hold(goes_and_comes, texts.filter(lambda found: all(one.isascii() for one in found)), count)


@pytest.mark.parametrize("count", HOW_MANY)
def test_keys_addresses_and_networks(count: int) -> None:
    key = make_key(is_admin=False)
    assert is_well_formed(key)
    almost = mutated(key.encode()).map(lambda raw: raw.decode("latin-1"))

    def tell(found: str) -> None:
        assert is_well_formed(found) is (found == key), "noise passed for a key"

    hold(tell, st.one_of(WORDS, st.text(max_size=80), almost), count)
    networks = st.one_of(
        WORDS, st.ip_addresses().map(str), mutated(b"192.0.2.0/24").map(lambda raw: raw.decode("latin-1"))
    )
    hold(lambda found: checked_networks([found]), networks, count)
    hold(lambda found: is_within(found, ()), networks, count)
    urls = mutated(b"https://user:x@example.com:8443/path?a=b#c").map(lambda raw: raw.decode("latin-1"))
    hold(lambda found: checked_url(found, ("localhost",)), st.one_of(st.text(max_size=60), urls), count)


@pytest.mark.parametrize("count", HOW_MANY)
def test_moments_and_money(count: int) -> None:
    texts = st.one_of(NUMBERS, st.datetimes().map(str), mutated(b"2027-01-31T10:00:00+02:00").map(repr), st.text())
    hold(instant_us, texts, count)
    hold(span_us, texts, count)

    def exact(text: str) -> None:
        try:
            nano = nano_of(text)
        except ValueError:
            return
        assert nano_of(decimal_text(nano)) == nano

    def price(text: str) -> None:
        try:
            pico_of(text)
        except ValueError:
            return

    hold(exact, texts, count)
    hold(price, texts, count)


@pytest.mark.parametrize("count", HOW_MANY)
def test_files_of_the_operator(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOLLGATE_CONFIG", raising=False)
    shipped = SHIPPED.read_bytes()
    odd = st.sampled_from([b"?", b"- a", b"text", b"models: 2026-13-01", b"models: " + b"9" * 5000, b"models: [[]]"])
    own = b"api:\n  port: 8000\n  trusted_proxies: [10.0.0.0/8]\nengine: {slots: 4}\n"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.yaml"

        def catalogue(raw: bytes) -> None:
            path.write_bytes(raw)
            load_catalogue(path)

        def own_settings(raw: bytes) -> None:
            path.write_bytes(raw)
            load_settings(file=path)

        hold(catalogue, st.one_of(odd, mutated(shipped), st.binary(max_size=100)), count // 10)
        hold(own_settings, st.one_of(odd, mutated(own), st.binary(max_size=100)), count // 2)


@pytest.mark.parametrize("count", HOW_MANY)
def test_a_spool_that_was_torn_or_damaged(count: int, tmp_path: Path) -> None:
    admission = Admission(
        request_id="req_whole", tenant_id="t", key_id="k", model="m", task="t", route="/v1/x", input_tokens=3,
        output_tokens_max=20, is_free=True,
    )  # fmt: skip
    spool, path = Spool(home=tmp_path), tmp_path / SPOOL_NAME
    spool.append(Settlement(admission=admission, outcome=Outcome.FINISHED, usage=Usage(output_tokens=5), at_us=1))
    line = path.read_bytes()

    def read(raw: bytes) -> None:
        path.write_bytes(raw + b"\n" + line)
        assert spool.waiting()[-1].admission == admission, "what stands behind damage is lost"
        spool.shipped()

    hold(read, st.one_of(mutated(line * 2), st.binary(max_size=100)), count)
