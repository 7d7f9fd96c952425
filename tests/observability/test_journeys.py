"""What a server tells of its requests, as its operator gets it: a line of JSON, and a trace over OTLP."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.fixtures.process import served

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PROMPT = "hello world, this is a secret"


@dataclass
class Collector:
    """Takes traces as OpenTelemetry's collector does."""

    url: str
    spans: list[Span] = field(default_factory=list[Span])


@pytest.fixture
def collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

        def do_POST(self) -> None:
            sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
            found.spans += [span for a in sent.resource_spans for b in a.scope_spans for span in b.spans]
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Collector(url=f"http://127.0.0.1:{server.server_port}/v1/traces")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_request_leaves_one_line_and_one_trace_and_neither_holds_its_text(
    tmp_path: Path, checkpoints: dict[str, Path], collector: Collector
) -> None:
    with served(tmp_path, checkpoints, TOLLGATE_OBSERVABILITY__TRACES_ENDPOINT=collector.url) as server:
        body = {"model": "tiny-gpt2", "prompt": PROMPT, "max_tokens": 8, "ignore_eos": True}
        asked = server.headers | {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        stream = httpx.post(server.url + "/v1/completions", json=body | {"stream": True}, headers=asked)
        whole = httpx.post(server.url + "/v1/completions", json=body, headers=server.headers)
        label = {"model": "tiny-bert-classifier", "input": PROMPT}
        assert httpx.post(server.url + "/v1/classifications", json=label, headers=server.headers).status_code == 200
        refused = httpx.post(server.url + "/v1/completions", json=body, headers={"authorization": "Bearer sk-tg-no"})
        assert (stream.status_code, whole.status_code, refused.status_code) == (200, 200, 401)
        assert server.stop() == 0
        lines = [line for line in server.logged() if line.get("event") == "request"]
        text = server.log.read_text(encoding="utf-8")
    assert [line["status"] for line in lines] == [200, 200, 200, 401]
    first, _, encoded, denied = lines
    assert first["request_id"] == stream.headers["x-tollgate-request-id"]
    assert {name: first[name] for name in ("tenant", "task", "model", "outcome", "output_tokens")} == {
        "tenant": "acme", "task": "text-generation", "model": "tiny-gpt2", "outcome": "finished", "output_tokens": 8,
    }  # fmt: skip
    parts = sum(first[name] for name in ("queue_ms", "prefill_ms", "decode_ms", "settle_ms"))
    assert 0 < parts <= first["duration_ms"] + 1
    assert 0 < first["first_token_ms"] <= first["duration_ms"]
    assert "first_token_ms" not in encoded and encoded["prefill_ms"] > 0
    assert "tenant" not in denied
    assert PROMPT not in text and server.key not in text and "sk-tg-no" not in text

    roots = {span.name: span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER}
    assert len([span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER]) == 4
    mine = [span for span in collector.spans if span.trace_id.hex() == TRACE]
    (root,) = (span for span in mine if span.parent_span_id.hex() == PARENT)
    assert root.name == "POST /v1/completions"
    children = {span.name: span for span in mine if span.parent_span_id == root.span_id}
    assert list(children) == ["admission", "queue", "prefill", "decode", "settle"]
    slack_ns = 2_000_000
    for span in children.values():
        assert root.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= root.end_time_unix_nano + slack_ns
    told = {one.key: one.value for one in root.attributes}
    assert told["gen_ai.usage.output_tokens"].int_value == 8
    assert told["tollgate.request_id"].string_value == first["request_id"]
    assert "POST /v1/classifications" in roots
    assert not any(PROMPT in str(span) for span in collector.spans)
