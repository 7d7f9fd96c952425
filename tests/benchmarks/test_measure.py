import time
from pathlib import Path

import pytest

from benchmarks.breakdown import BETWEEN, PRODUCTS, by_kind, kind_of, kind_of_kernel
from benchmarks.measure import paired, percentile, sample_of, spread
from benchmarks.runners.runner import Trace, split_name
from benchmarks.worker import timed
from benchmarks.workloads import Ask, Work


def small_work(rate: float | None = None) -> Work:
    asks = (Ask((1, 2), 3, 1.0), Ask((1,), 2, 3.0))
    return Work(name="small", title="", model="gpt2", asks=asks, at_once=2, rate=rate)


def test_times_to_first_token_count_from_the_arrival_and_gaps_within_a_request() -> None:
    trace = Trace((3, 2), ((0.75, 1.0, 1.5), (2.5, 2.625)))
    sample = sample_of(small_work(rate=2.0), trace, 4.0)
    assert sample.ttft_s == (0.25, 1.0)
    assert sample.gaps_s == (0.25, 0.5, 0.125)
    assert (sample.rate, sample.requests_per_s) == (5 / 4, 2 / 4)


def test_the_time_a_token_leaves_the_prompt_out() -> None:
    sample = sample_of(small_work(), Trace((3, 2)), 2.0, first_s=0.5)
    assert sample.decode_ms == pytest.approx(1000 * 1.5 / 3)
    assert sample.ttft_s == ()


def test_medians_ranges_and_percentiles() -> None:
    assert spread([3.0, 1.0, 2.0]).shown() == "2.00 (1.00–3.00)"
    assert spread([2.0]).shown(1) == "2.0"
    assert percentile([4.0, 0.0, 2.0, 1.0, 3.0], 0.5) == 2.0
    assert percentile([0.0, 10.0], 0.95) == pytest.approx(9.5)
    assert percentile([7.0], 0.95) == 7.0


class Slow:
    """Takes 10 ms for each run, and one run gives a token too few."""

    def __init__(self, *, short_at: int = 0) -> None:
        self.runs = 0
        self._short_at = short_at

    def load(self, folder: Path, *, model: str) -> str:
        return f"{model} from {folder}"

    def run(self, work: Work) -> Trace:
        self.runs += 1
        time.sleep(0.01)
        return Trace((3, 1 if self.runs == self._short_at else 2))

    def close(self) -> None:
        pass


def test_a_short_work_is_repeated_and_each_run_counts_and_is_checked() -> None:
    runner = Slow()
    trace, seconds = timed(runner, small_work(), least_s=0.05)
    assert 2 <= runner.runs <= 5 and trace.output_tokens == (3, 2)
    assert seconds * runner.runs >= 0.05
    once = Slow()
    timed(once, small_work(), least_s=0.0)
    assert once.runs == 1
    with pytest.raises(AssertionError, match="received 1 tokens"):
        timed(Slow(short_at=2), small_work(), least_s=0.05)


def test_ratios_are_taken_round_by_round() -> None:
    found = paired([2.0, 40.0, 6.0], [1.0, 10.0, 2.0])
    assert (found.median, found.least, found.greatest) == (3.0, 2.0, 4.0)


def test_operations_are_told_apart_by_name_and_what_is_left_is_dispatch() -> None:
    assert kind_of("aten::addmm") == kind_of("quantized::linear_dynamic") == PRODUCTS
    assert kind_of("aten::bmm") == kind_of("aten::_scaled_dot_product_flash_attention_for_cpu") == "attention"
    assert kind_of("aten::native_layer_norm") == "norms"
    assert kind_of_kernel("linear.linear_int8", 3072, 50257) == kind_of_kernel("tiles.project_tiles", 768, 50257)
    assert kind_of_kernel("linear.linear_int8", 50257, 50257) == "the head"
    assert kind_of_kernel("best.best_outputs", 32, 50257) == "the head"
    assert kind_of_kernel("attention.attend_bf16", 768, 50257) == kind_of_kernel("spans_bf16.attend_spans", 0, 9)
    assert kind_of_kernel("attention.store", 64, 50257) == kind_of("aten::copy_") == "cache and copies"
    assert kind_of_kernel("rows.best_of_rows", 0, 50257) == "sampling"
    found = by_kind([(PRODUCTS, 30.0), ("attention", 4.0), ("attention", 6.0)], wall_ms=60.0, steps=10)
    assert found == {PRODUCTS: 3.0, "attention": 1.0, BETWEEN: 2.0}


def test_an_engines_name_says_its_kind_and_precision() -> None:
    assert split_name("tollgate-engine-int8") == ("tollgate-engine", "int8")
    for wrong in ("ctranslate2", "vllm-bf16", "ctranslate2-int4"):
        with pytest.raises(ValueError, match="there is no engine"):
            split_name(wrong)
