import pytest

from benchmarks.runners.runner import Trace, check_counts
from benchmarks.workloads import CONCURRENCIES, MAKERS, QUICK, chosen, make_work


@pytest.mark.parametrize("name", MAKERS)
def test_a_work_is_the_same_at_every_call(name: str) -> None:
    assert make_work(name) == make_work(name)
    assert make_work(name).name == name


def test_equal_streams_sum_up_to_what_their_title_says() -> None:
    for count in CONCURRENCIES[1:]:
        work = make_work(f"gpt2-{count}")
        assert (len(work.asks), work.input_tokens, work.output_tokens) == (count, 128 * count, 64 * count)


def test_the_queue_has_mixed_lengths_inside_its_bounds() -> None:
    work = make_work("gpt2-queue")
    assert len(work.asks) == 96
    assert all(16 <= len(ask.ids) <= 512 and 8 <= ask.output_tokens <= 256 for ask in work.asks)
    assert max(len(ask.ids) + ask.output_tokens for ask in work.asks) <= 1024
    assert len({len(ask.ids) for ask in work.asks}) > 60


def test_arrivals_come_in_order_and_about_one_a_second_before_a_rate_divides_them() -> None:
    arrivals = [ask.arrival_s for ask in make_work("gpt2-poisson").asks]
    assert arrivals == sorted(arrivals)
    assert 0.6 < arrivals[-1] / len(arrivals) < 1.6


def test_batches_hold_every_request_once_and_follow_the_order_that_the_work_names() -> None:
    arrival, by_length, alone = (make_work(name) for name in ("bert-64", "bert-64-sorted", "bert-64-alone"))
    assert arrival.asks == by_length.asks == alone.asks
    assert arrival.batches()[0] == list(range(16))
    flat = [place for batch in by_length.batches() for place in batch]
    assert sorted(flat) == list(range(64))
    lengths = [len(by_length.asks[place].ids) for place in flat]
    assert lengths == sorted(lengths)
    assert [len(batch) for batch in alone.batches()] == [1] * 64


def test_a_first_pass_asks_for_one_token_of_the_same_prompts() -> None:
    work = make_work("gpt2-1")
    assert work.first_only().output_tokens == len(work.asks)
    assert work.first_only().input_tokens == work.input_tokens


def test_a_smaller_scale_keeps_one_stream_one_stream() -> None:
    assert QUICK.count(1) == 1
    assert make_work("gpt2-1", "quick").at_once == 1


def test_works_are_chosen_by_name_or_kind_and_a_typo_is_told() -> None:
    assert chosen(["gpt2-1"]) == ["gpt2-1"]
    assert chosen(["marian", "bert-8"]) == ["bert-8", "marian-greedy", "marian-beam"]
    assert chosen([]) == list(MAKERS)
    with pytest.raises(ValueError, match="no work 'gpt3'"):
        chosen(["gpt3"])


def test_a_wrong_count_of_tokens_is_a_failure_and_names_the_request() -> None:
    work = make_work("gpt2-2")
    check_counts(work, Trace((64, 64)))
    with pytest.raises(AssertionError, match="request 1 received 63"):
        check_counts(work, Trace((64, 63)))
    with pytest.raises(AssertionError, match="1 of 2"):
        check_counts(work, Trace((64,)))
