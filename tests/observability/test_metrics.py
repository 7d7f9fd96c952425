"""What a scrape says, parsed as Prometheus would, of requests that are opened, watched and ended."""

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.errors import EngineOverloaded
from app.observability.distribution import Spread
from app.observability.metrics import Metrics
from app.observability.scrape import Scrape
from app.observability.settings import Board

GPT = {"task": "text-generation", "model": "m"}


def scraped(metrics: Metrics, *boards: Board) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = Scrape(metrics, boards=boards).text().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def run(metrics: Metrics, *, task: str = "text-generation", tokens: int = 3) -> None:
    with metrics.request(task=task, model="m") as watched:
        for _ in range(tokens):
            watched.produced("row", 1)
        watched.ran(reason="length" if tokens else "done", queue_s=0.5, prefill_s=0.25, decode_s=1.0 if tokens else 0)
        watched.tokens(7, tokens)
        watched.output_tokens_asked = tokens


def test_a_request_is_counted_with_its_tokens_times_and_end() -> None:
    metrics = Metrics()
    run(metrics)
    found = scraped(metrics)

    def value(name: str, **more: str) -> float:
        return found[name, frozenset((GPT | more).items())]

    assert value("tollgate_requests_total", outcome="finished") == 1
    assert value("tollgate_request_success_total", finished_reason="length") == 1
    assert value("tollgate_prompt_tokens_total") == 7
    assert value("tollgate_generation_tokens_total") == 3
    assert value("tollgate_requests_open") == 0
    assert value("tollgate_time_to_first_token_seconds_count") == 1
    assert value("tollgate_inter_token_latency_seconds_count") == 2
    assert value("tollgate_request_queue_time_seconds_sum") == 0.5
    assert value("tollgate_request_inference_time_seconds_sum") == 1.25
    assert value("tollgate_request_time_per_output_token_seconds_sum") == 0.5
    assert value("tollgate_request_prompt_tokens_bucket", le="10.0") == 1
    assert value("tollgate_request_prompt_tokens_bucket", le="5.0") == 0


def test_tokens_that_come_together_are_as_many_gaps_as_they_are() -> None:
    metrics = Metrics()
    with metrics.request(task="text-generation", model="m") as watched:
        for count in (1, 3, 2):
            watched.produced("row", count)
    found = scraped(metrics)
    assert found["tollgate_inter_token_latency_seconds_count", frozenset(GPT.items())] == 5


def test_an_encoder_has_no_first_token() -> None:
    metrics = Metrics()
    run(metrics, task="text-classification", tokens=0)
    labels = frozenset({"task": "text-classification", "model": "m"}.items())
    found = scraped(metrics)
    assert found["tollgate_time_to_first_token_seconds_count", labels] == 0
    assert found["tollgate_request_prefill_time_seconds_count", labels] == 1


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(EngineOverloaded(), "failed"), (asyncio.CancelledError(), "cancelled"), (GeneratorExit(), "cancelled")],
)
def test_every_other_end_has_a_name_of_its_own(error: BaseException, outcome: str) -> None:
    metrics = Metrics()
    with pytest.raises(type(error)), metrics.request(task="text-generation", model="m"):
        raise error
    found = scraped(metrics)
    assert found["tollgate_requests_total", frozenset((GPT | {"outcome": outcome}).items())] == 1
    assert not any(name == "tollgate_request_success_total" for name, _ in found)


def test_what_the_engine_counts_comes_with_rising_buckets() -> None:
    metrics, spread = Metrics(), Spread((1, 10, 100))
    for value in (1, 2, 5000):
        spread.add(value)
    metrics.gauge("tollgate_iteration_rows", lambda: {("m",): spread.snapshot})
    found = scraped(metrics)
    name, rising = "tollgate_iteration_rows_bucket", {"1.0": 1, "10.0": 2, "100.0": 2, "+Inf": 3}
    assert {le: found[name, frozenset({"model": "m", "le": le}.items())] for le in rising} == rising
    assert found["tollgate_iteration_rows_sum", frozenset({"model": "m"}.items())] == 5003


def test_boards_of_vllm_find_their_names_and_labels() -> None:
    metrics = Metrics()
    metrics.gauge("tollgate_num_requests_waiting", lambda: {("m",): 4})
    run(metrics)
    run(metrics, task="text-classification", tokens=0)
    found = scraped(metrics, "vllm")
    labels = {"model_name": "m", "engine": "0"}
    assert found["vllm:num_requests_waiting", frozenset(labels.items())] == 4
    assert found["vllm:generation_tokens_total", frozenset(labels.items())] == 3
    assert found["vllm:prompt_tokens_total", frozenset(labels.items())] == 14
    assert found["vllm:e2e_request_latency_seconds_bucket", frozenset((labels | {"le": "+Inf"}).items())] == 2
    assert found["vllm:time_to_first_token_seconds_count", frozenset(labels.items())] == 1
    reasons = {reason: frozenset((labels | {"finished_reason": reason}).items()) for reason in ("length", "stop")}
    assert [found["vllm:request_success_total", reasons[reason]] for reason in reasons] == [1, 1]


def test_boards_of_tgi_and_te_each_find_their_own_tasks() -> None:
    metrics = Metrics()
    run(metrics)
    run(metrics, task="text-classification", tokens=0)
    run(metrics, task="question-answering", tokens=0)
    found = scraped(metrics, "tgi", "te")
    nothing = frozenset[tuple[str, str]]()
    assert found["tgi_request_count", nothing] == 1
    assert found["tgi_request_generated_tokens_sum", nothing] == 3
    assert found["te_request_count", frozenset({"method": "batch"}.items())] == 2
    assert found["te_request_queue_duration_count", nothing] == 2


def test_without_a_board_no_alias_is_exported() -> None:
    metrics = Metrics()
    run(metrics)
    assert {name.partition("_")[0] for name, _ in scraped(metrics)} == {"tollgate"}
