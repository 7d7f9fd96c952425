"""Every metric, in one list. Names follow Prometheus' and, where they mean the same, vLLM's."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BY_MODEL = ("task", "model")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


@dataclass(slots=True)
class Watched:
    """One request under watch."""

    outcome: str = "finished"
    started_s: float = field(default_factory=time.perf_counter)
    input_tokens: int = 0
    output_tokens: int = 0

    def tokens(self, input_tokens: int, output_tokens: int) -> None:
        """What it read and produced."""
        self.input_tokens, self.output_tokens = input_tokens, output_tokens


class Metrics:
    """The series of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "tollgate_requests", "Requests by outcome.", (*BY_MODEL, "outcome"), registry=self.registry
        )
        self._running = Gauge("tollgate_requests_open", "Requests being served.", BY_MODEL, registry=self.registry)
        self._seconds = Histogram(
            "tollgate_request_duration_seconds", "From arrival to the end of the answer.", BY_MODEL, buckets=SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self._input = Counter("tollgate_prompt_tokens", "Tokens read.", BY_MODEL, registry=self.registry)
        self._output = Counter("tollgate_generation_tokens", "Tokens produced.", BY_MODEL, registry=self.registry)

    @contextmanager
    def request(self, *, task: str, model: str) -> Generator[Watched]:
        """Count and time a request. The outcome is what was set, or cancelled, or failed."""
        watched = Watched()
        running = self._running.labels(task, model)
        running.inc()
        try:
            yield watched
        except Exception:
            watched.outcome = "failed" if watched.outcome == "finished" else watched.outcome
            raise
        except BaseException:
            watched.outcome = "cancelled"
            raise
        finally:
            running.dec()
            self._requests.labels(task, model, watched.outcome).inc()
            self._seconds.labels(task, model).observe(time.perf_counter() - watched.started_s)
            self._input.labels(task, model).inc(watched.input_tokens)
            self._output.labels(task, model).inc(watched.output_tokens)

    def counter(self, name: str, help_text: str, labels: tuple[str, ...]) -> Counter:
        """A counter that its room counts itself."""
        return Counter(name, help_text, labels, registry=self.registry)

    def gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """A gauge that is read when it is asked for."""
        Gauge(name, help_text, registry=self.registry).set_function(read)

    def text(self) -> bytes:
        """All series in Prometheus' text format."""
        return generate_latest(self.registry)
