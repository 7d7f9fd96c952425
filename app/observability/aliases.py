"""The same numbers under other servers' names, so that boards and autoscalers made for them work here.

Sums over what the others do not tell apart: vLLM knows no tasks, TGI and TEI no models.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.metrics_core import Metric

from app.observability.settings import Board

GENERATING = frozenset({"text-generation", "translation"})
ENCODING = frozenset({"text-classification", "question-answering", "embeddings", "feature-extraction"})
FINISH = {"done": "stop", "cancelled": "abort"}
Relabel = Callable[[Mapping[str, str]], dict[str, str] | None]
"""The alias's labels for ours; None leaves the sample out."""


@dataclass(frozen=True, slots=True)
class Alias:
    """Another name for a family. `has_total` is false for counters that the other server names without _total."""

    name: str
    of: str
    relabel: Relabel
    has_total: bool = True


def for_model(labels: Mapping[str, str]) -> dict[str, str]:
    """vLLM's labels."""
    return {"model_name": labels.get("model", ""), "engine": "0"}


def by_reason(labels: Mapping[str, str]) -> dict[str, str]:
    """vLLM's words for why a request ended."""
    reason = labels.get("finished_reason", "")
    return for_model(labels) | {"finished_reason": FINISH.get(reason, reason)}


def rejected(labels: Mapping[str, str]) -> dict[str, str] | None:
    """Requests that were not taken on."""
    reason = labels["outcome"]
    if reason not in ("server_is_overloaded", "draining", "deadline_unreachable"):
        return None
    return {"model_name": labels["model"], "reason": reason}


@dataclass(frozen=True, slots=True)
class Only:
    """Samples of some tasks and outcomes, with fixed labels instead of ours."""

    tasks: frozenset[str]
    outcomes: Callable[[str], bool] = lambda outcome: True
    shown: Mapping[str, str] = field(default_factory=dict[str, str])
    has_error: bool = False

    def __call__(self, labels: Mapping[str, str]) -> dict[str, str] | None:
        """See Relabel."""
        outcome = labels.get("outcome", "finished")
        if labels["task"] not in self.tasks or not self.outcomes(outcome):
            return None
        return dict(self.shown) | ({"err": error_of(outcome)} if self.has_error else {})


def error_of(outcome: str) -> str:
    """TGI's and TEI's words for why a request failed."""
    words = {"server_is_overloaded": "overloaded", "cancelled": "dropped", "request_timeout": "dropped"}
    invalid = ("invalid_request", "empty_input", "context_length_exceeded", "unsupported_parameter")
    return "validation" if outcome in invalid else words.get(outcome, "generation")


def is_success(outcome: str) -> bool:
    """Whether a request ended well."""
    return outcome == "finished"


def is_failure(outcome: str) -> bool:
    """Whether it did not."""
    return outcome != "finished"


def everything(_: Mapping[str, str]) -> dict[str, str]:
    """One number for the whole server."""
    return {}


SAME_NAMES = (
    "time_to_first_token_seconds", "inter_token_latency_seconds", "request_time_per_output_token_seconds",
    "e2e_request_latency_seconds", "request_queue_time_seconds", "request_prefill_time_seconds",
    "request_decode_time_seconds", "request_inference_time_seconds", "request_prompt_tokens",
    "request_generation_tokens", "request_max_num_generation_tokens", "request_params_max_tokens",
    "iteration_tokens_total", "num_requests_running", "num_requests_waiting", "kv_cache_usage_perc",
    "prompt_tokens", "generation_tokens",
)  # fmt: skip
"""What vLLM calls as we do, after the prefix."""
VLLM = (
    *(Alias("vllm:" + name, "tollgate_" + name, for_model) for name in SAME_NAMES),
    Alias("vllm:time_per_output_token_seconds", "tollgate_inter_token_latency_seconds", for_model),
    Alias("vllm:gpu_cache_usage_perc", "tollgate_kv_cache_usage_perc", for_model),
    Alias("vllm:request_success", "tollgate_request_success", by_reason),
    Alias("vllm:admission_rejections", "tollgate_requests", rejected),
)


def others(prefix: str, tasks: frozenset[str], shown: Mapping[str, str]) -> tuple[Alias, ...]:
    """What TGI and TEI share."""
    here, good = Only(tasks, shown=shown), Only(tasks, is_success, shown)
    bad, bare = Only(tasks, is_failure, has_error=True), Only(tasks)
    return (
        Alias(prefix + "request_count", "tollgate_requests", here, has_total=False),
        Alias(prefix + "request_success", "tollgate_requests", good, has_total=False),
        Alias(prefix + "request_failure", "tollgate_requests", bad, has_total=False),
        Alias(prefix + "request_duration", "tollgate_e2e_request_latency_seconds", bare),
        Alias(prefix + "request_queue_duration", "tollgate_request_queue_time_seconds", bare),
        Alias(prefix + "request_inference_duration", "tollgate_request_inference_time_seconds", bare),
        Alias(prefix + "request_input_length", "tollgate_request_prompt_tokens", bare),
        Alias(prefix + "queue_size", "tollgate_num_requests_waiting", everything),
        Alias(prefix + "batch_next_size", "tollgate_iteration_rows", everything),
    )


TGI = (
    *others("tgi_", GENERATING, {}),
    Alias("tgi_request_generated_tokens", "tollgate_request_generation_tokens", Only(GENERATING)),
    Alias("tgi_request_max_new_tokens", "tollgate_request_params_max_tokens", Only(GENERATING)),
    Alias("tgi_request_mean_time_per_token_duration", "tollgate_request_time_per_output_token_seconds",
          Only(GENERATING)),
    Alias("tgi_batch_current_size", "tollgate_num_requests_running", everything),
    Alias("tgi_batch_inference_duration", "tollgate_iteration_duration_seconds", everything),
)  # fmt: skip
TE = (
    *others("te_", ENCODING, {"method": "batch"}),
    Alias("te_batch_next_tokens", "tollgate_iteration_tokens_total", everything),
)
ALIASES: dict[Board, tuple[Alias, ...]] = {"vllm": VLLM, "tgi": TGI, "te": TE}


def aliases(board: Board, families: Iterable[Metric]) -> Iterator[Metric]:
    """What `families` are called by a board made for another server."""
    known = {family.name: family for family in families}
    for alias in ALIASES[board]:
        if (family := known.get(alias.of)) is not None:
            yield renamed(alias, family)


def renamed(alias: Alias, family: Metric) -> Metric:
    """The family under its other name, summed where the other server has fewer labels."""
    kind = family.type if family.type != "counter" or alias.has_total else "unknown"
    shown = Metric(alias.name, family.documentation, kind)
    sums: dict[tuple[str, tuple[tuple[str, str], ...]], float] = defaultdict(float)
    for sample in family.samples:
        labels = alias.relabel(sample.labels)
        if labels is None:
            continue
        suffix = sample.name.removeprefix(alias.of)
        if suffix == "_total" and not alias.has_total:
            suffix = ""
        if "le" in sample.labels:
            labels["le"] = sample.labels["le"]
        sums[suffix, tuple(labels.items())] += sample.value
    for (suffix, labels), value in sums.items():
        shown.add_sample(alias.name + suffix, dict(labels), value)
    return shown
