"""Every metric, in one list. Names are Prometheus' and, after the prefix, vLLM's where they mean the same."""

import os
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,  # pyright: ignore[reportUnknownVariableType] (it lacks annotations)
)

from app.blocks import allocate
from app.observability.buckets import ROWS, SECONDS, STEP_SECONDS, TOKEN_SECONDS, TOKENS, WAIT_SECONDS
from app.observability.distribution import Distribution

disable_created_metrics()
PROCESSES_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which prometheus_client learns, when it is imported, that several processes count together."""
RUN = ("task", "model")


class Kind(StrEnum):
    """Prometheus' sorts of metrics."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Series:
    """One metric. `across` says how the numbers of several HTTP processes become one.

    `same`: each knows the whole (the engine's are the same for all), so the one that is asked answers.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    across: Literal["sum", "max", "min", "same"] = "sum"

    @property
    def shown_name(self) -> str:
        """As it stands in the scrape: counters end in _total."""
        return self.name + "_total" if self.kind is Kind.COUNTER else self.name


C, G, H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM
METRICS: tuple[Series, ...] = (
    # Requests
    Series("tollgate_requests", C, "Requests by outcome: finished, cancelled, failed, or an error's code.",
           (*RUN, "outcome")),
    Series("tollgate_requests_open", G, "Requests between admission and the end of their answer.", RUN),
    Series("tollgate_request_success", C, "Finished requests by why they ended: stop, length or done.",
           (*RUN, "finished_reason")),
    Series("tollgate_prompt_tokens", C, "Tokens read, as they are charged.", RUN),
    Series("tollgate_generation_tokens", C, "Tokens produced and delivered.", RUN),
    Series("tollgate_http_requests", C, "Answers of any route, by status.", ("method", "route", "status")),
    # How long
    Series("tollgate_time_to_first_token_seconds", H, "From arrival to the first token of the answer.", RUN,
           TOKEN_SECONDS),
    Series("tollgate_inter_token_latency_seconds", H, "Between two tokens of one row.", RUN, TOKEN_SECONDS),
    Series("tollgate_request_time_per_output_token_seconds", H, "A request's time of decoding by its tokens.", RUN,
           TOKEN_SECONDS),
    Series("tollgate_e2e_request_latency_seconds", H, "From arrival to the end of the answer.", RUN, SECONDS),
    Series("tollgate_request_queue_time_seconds", H, "In the engine's line (its longest waiting row).", RUN, SECONDS),
    Series("tollgate_request_prefill_time_seconds", H, "From the line's end to the first token, or to an encoder's "
           "scores.", RUN, SECONDS),
    Series("tollgate_request_decode_time_seconds", H, "From the first token to the last.", RUN, SECONDS),
    Series("tollgate_request_inference_time_seconds", H, "In the engine, without its line.", RUN, SECONDS),
    # How much
    Series("tollgate_request_prompt_tokens", H, "Tokens that a finished request read.", RUN, TOKENS),
    Series("tollgate_request_generation_tokens", H, "Tokens that a finished request produced.", RUN, TOKENS),
    Series("tollgate_request_max_num_generation_tokens", H, "Tokens of a finished request's longest row.", RUN,
           TOKENS),
    Series("tollgate_request_params_max_tokens", H, "Tokens that a request asked for at most.", RUN, TOKENS),
    Series("tollgate_truncated_inputs", C, "Inputs that lost an end, as their caller allowed.", RUN),
    # The engine
    Series("tollgate_engine_up", G, "1 while the engine answers and holds its models.", across="same"),
    Series("tollgate_engine_losses", C, "How often the engine's process was lost.", across="same"),
    Series("tollgate_engine_resident_memory_bytes", G, "Memory of the engine's process: weights, caches, and what its "
           "work takes.", across="same"),
    Series("tollgate_num_requests_running", G, "Rows in the engine.", ("model",), across="same"),
    Series("tollgate_num_requests_waiting", G, "Rows in the engine's line.", ("model",), across="same"),
    Series("tollgate_kv_cache_usage_perc", G, "Share of cache slots in use, 0 to 1.", ("model",), across="same"),
    Series("tollgate_prefix_cache_queries", C, "Prompt tokens of all rows.", ("model",), across="same"),
    Series("tollgate_prefix_cache_hits", C, "Prompt tokens whose keys and values were in the cache already.",
           ("model",), across="same"),
    Series("tollgate_iteration_tokens_total", H, "Tokens of an engine step.", ("model",), TOKENS, across="same"),
    Series("tollgate_iteration_rows", H, "Rows of an engine step.", ("model",), ROWS, across="same"),
    Series("tollgate_iteration_duration_seconds", H, "How long an engine step took.", ("model",), STEP_SECONDS,
           across="same"),
    # Models
    Series("tollgate_model_resident", G, "1 while the model is in memory.", ("model",), across="same"),
    Series("tollgate_model_loaded_bytes", G, "Memory of a resident model, its cache included.", ("model",),
           across="same"),
    # The toll
    Series("tollgate_requests_limited", C, "Requests refused by a rate limit, by what it counts.", ("limit",)),
    Series("tollgate_limits_shared", G, "1 while Redis counts the limits, 0 while each replica enforces its share; "
           "only with Redis.", across="min"),
    Series("tollgate_spool_waiting", G, "1 while entries wait for the database.", across="max"),
    Series("tollgate_data_free_bytes", G, "Room on the disk of the data folder: for the spool, and for SQLite.",
           across="min"),
    Series("tollgate_webhook_attempts", C, "Attempts to deliver a webhook's message: delivered, failed, or dead "
           "(the last one failed).", ("outcome",)),
    Series("tollgate_usage_events_sent", C, "Usage events handed to the file or the webhook."),
    Series("tollgate_usage_events_waiting", G, "Usage events that wait; a consumer that is away lets them grow.",
           across="max"),
    Series("tollgate_webhooks_waiting", G, "Messages for webhooks that wait, also for a next attempt.", across="max"),
    Series("tollgate_webhooks_dead", G, "Messages for webhooks that were given up.", across="max"),
    # The process
    Series("tollgate_ready", G, "1 while /readyz says yes.", across="min"),
    Series("tollgate_processes", G, "Processes that answer HTTP."),
    Series("tollgate_process_resident_memory_bytes", G, "Memory of the processes that answer HTTP."),
    Series("tollgate_process_open_fds", G, "Open files and sockets of the processes that answer HTTP."),
    Series("tollgate_process_threads", G, "Threads of the processes that answer HTTP."),
    Series("tollgate_event_loop_lag_seconds", H, "How late a timer of the event loop was.", (), WAIT_SECONDS),
)  # fmt: skip
BY_NAME = {series.name: series for series in METRICS}
ACROSS_PROCESSES: dict[str, Literal["livesum", "livemax", "livemin"]] = {
    "sum": "livesum", "max": "livemax", "min": "livemin",
}  # fmt: skip
FILE_BYTES = 2**20
"""Of each file that prometheus_client maps."""
Labelled = Mapping[tuple[str, ...], float | Distribution]
"""Values by their labels, in the order of the series' label names."""
Read = Callable[[], float | Labelled]


def take_room(folder: Path) -> None:
    """Make the files that prometheus_client will map for this process: its own ones would be holes."""
    for sort in ("counter", "histogram", *(f"gauge_{mode}" for mode in ACROSS_PROCESSES.values())):
        with (folder / f"{sort}_{os.getpid()}.db").open("ab") as file:
            allocate(file.fileno(), FILE_BYTES)


class Metrics:
    """The series of one process, in a registry of their own. Asking for a name that is not in the list is a bug.

    Raises OSError when several processes count together and there is no room for this one's numbers.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.reads: dict[str, Read] = {}
        self.sampled: dict[str, Read] = {}
        self.is_one_of_many = bool(os.environ.get(PROCESSES_FOLDER))
        if self.is_one_of_many:
            take_room(Path(os.environ[PROCESSES_FOLDER]))
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        self._runs: dict[tuple[str, str], Runs] = {}
        for series in METRICS:
            name, words, labels = series.name, series.help, series.labels
            if series.across == "same":
                continue
            if series.kind is Kind.COUNTER:
                self._counters[name] = Counter(name, words, labels, registry=self.registry)
            elif series.kind is Kind.HISTOGRAM:
                self._histograms[name] = Histogram(name, words, labels, buckets=series.buckets, registry=self.registry)
            elif labels:
                self._add_gauge(series)

    def _add_gauge(self, series: Series) -> None:
        mode = ACROSS_PROCESSES[series.across]
        self._gauges[series.name] = Gauge(
            series.name, series.help, series.labels, multiprocess_mode=mode, registry=self.registry
        )

    def counter(self, name: str) -> Counter:
        """A counter that its room counts itself."""
        return self._counters[name]

    def histogram(self, name: str) -> Histogram:
        """A histogram that its room fills itself."""
        return self._histograms[name]

    def gauge(self, name: str, read: Read) -> None:
        """How a gauge, or what the engine has counted, is read when somebody asks."""
        if BY_NAME[name].across == "same":
            self.reads[name] = read
            return
        self.sampled[name] = read
        self._add_gauge(BY_NAME[name])

    def sample(self) -> None:
        """Read this process's gauges, so that another one can tell them too."""
        for name, read in self.sampled.items():
            found = read()
            assert isinstance(found, float | int), f"{name} has no labels. This is a bug."
            self._gauges[name].set(found)

    @contextmanager
    def request(self, *, task: str, model: str) -> Generator["Watched"]:
        """Count and time a request. The outcome is what was set, or cancelled, or failed."""
        runs = self._runs.get((task, model))
        if runs is None:
            runs = self._runs[task, model] = Runs.of(self, task, model)
        watched = Watched(runs)
        runs.open.inc()
        try:
            yield watched
        except Exception:
            watched.outcome = "failed" if watched.outcome == "finished" else watched.outcome
            raise
        except BaseException:
            watched.outcome = "cancelled"
            raise
        finally:
            runs.open.dec()
            self._counters["tollgate_requests"].labels(task, model, watched.outcome).inc()
            if watched.outcome == "finished":
                self._counters["tollgate_request_success"].labels(task, model, watched.reason).inc()
            watched.end()

    def opened(self, task: str, model: str) -> Gauge:
        """The gauge of requests that run, for a task and a model."""
        return self._gauges["tollgate_requests_open"].labels(task, model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """The series of one task and model, looked up once: a token costs a bucket's increment."""

    open: Gauge
    first: Histogram
    between: Histogram
    per_token: Histogram
    whole: Histogram
    queue: Histogram
    prefill: Histogram
    decode: Histogram
    inference: Histogram
    read: Counter
    produced: Counter
    read_each: Histogram
    produced_each: Histogram
    longest: Histogram
    asked: Histogram

    @staticmethod
    def of(metrics: Metrics, task: str, model: str) -> "Runs":
        """Of one task on one model; both come from the catalogue, so there are few."""

        def histogram(name: str) -> Histogram:
            return metrics.histogram("tollgate_" + name).labels(task, model)

        return Runs(
            open=metrics.opened(task, model), first=histogram("time_to_first_token_seconds"),
            between=histogram("inter_token_latency_seconds"), whole=histogram("e2e_request_latency_seconds"),
            per_token=histogram("request_time_per_output_token_seconds"),
            queue=histogram("request_queue_time_seconds"), prefill=histogram("request_prefill_time_seconds"),
            decode=histogram("request_decode_time_seconds"), inference=histogram("request_inference_time_seconds"),
            read=metrics.counter("tollgate_prompt_tokens").labels(task, model),
            produced=metrics.counter("tollgate_generation_tokens").labels(task, model),
            read_each=histogram("request_prompt_tokens"), produced_each=histogram("request_generation_tokens"),
            longest=histogram("request_max_num_generation_tokens"), asked=histogram("request_params_max_tokens"),
        )  # fmt: skip


class Watched:
    """One request under watch."""

    def __init__(self, runs: Runs) -> None:
        self.outcome = "finished"
        self.reason = "done"
        self.input_tokens = 0
        self.output_tokens = 0
        self.output_tokens_asked = 0
        self.started_s = time.perf_counter()
        self.first_s: float | None = None
        """From arrival to the first token; None before, and for what produces none."""
        self.queue_s = self.prefill_s = self.decode_s = 0.0
        """The engine's times of the slowest row."""
        self.submitted_s: float | None = None
        """When it was admitted and its work was sent to the engine."""
        self._runs = runs
        self._last_s: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._has_run = False

    def tokens(self, input_tokens: int, output_tokens: int) -> None:
        """What it read and produced."""
        self.input_tokens, self.output_tokens = input_tokens, output_tokens

    def submit(self) -> None:
        """Its work goes to the engine, now."""
        self.submitted_s = time.perf_counter()

    def produced(self, row: str, count: int) -> None:
        """A row has `count` more tokens, now."""
        now_s = time.perf_counter()
        last_s = self._last_s.get(row)
        if last_s is not None:
            for _ in range(count):
                self._runs.between.observe((now_s - last_s) / count)
        elif self.first_s is None:
            self.first_s = now_s - self.started_s
            self._runs.first.observe(self.first_s)
        self._last_s[row] = now_s
        self._counts[row] = self._counts.get(row, 0) + count

    def ran(self, *, reason: str, queue_s: float, prefill_s: float, decode_s: float) -> None:
        """A row has ended, and was so long in each of the engine's hands."""
        self._has_run = True
        self.reason = reason
        self.queue_s = max(self.queue_s, queue_s)
        self.prefill_s = max(self.prefill_s, prefill_s)
        self.decode_s = max(self.decode_s, decode_s)

    @property
    def total_s(self) -> float:
        """From arrival until now."""
        return time.perf_counter() - self.started_s

    def end(self) -> None:
        """Count it."""
        runs = self._runs
        runs.whole.observe(self.total_s)
        runs.read.inc(self.input_tokens)
        runs.produced.inc(self.output_tokens)
        if self._has_run:
            runs.queue.observe(self.queue_s)
            runs.prefill.observe(self.prefill_s)
            runs.decode.observe(self.decode_s)
            runs.inference.observe(self.prefill_s + self.decode_s)
        if self.outcome != "finished":
            return
        runs.read_each.observe(self.input_tokens)
        runs.produced_each.observe(self.output_tokens)
        longest = max(self._counts.values(), default=0)
        runs.longest.observe(longest)
        if longest > 1 and self._has_run:
            runs.per_token.observe(self.decode_s / (longest - 1))
        if self.output_tokens_asked:
            runs.asked.observe(self.output_tokens_asked)
