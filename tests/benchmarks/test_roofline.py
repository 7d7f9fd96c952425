from benchmarks.roofline import Limits, Phase, floor_s, phases
from benchmarks.workloads import Ask, Work, make_work

LIMITS = Limits(1e9, {"fp32": 1e9, "bf16": 2e9, "int8": 4e9})


def test_a_phase_takes_as_long_as_the_slower_of_memory_and_arithmetic() -> None:
    assert Phase(2e9, 1e9).seconds(LIMITS, "fp32") == 2.0
    assert Phase(1e9, 8e9).seconds(LIMITS, "bf16") == 4.0


def test_a_decoders_floor_by_hand() -> None:
    """Width 2, two layers of 4·2² + 2·2·8 = 48 weights, a head of 5·2 = 10; two rows of 3 in, 3 out, at once."""
    shape = {"width": 2, "layers": 2, "vocabulary": 5}
    work = Work(name="w", title="", model="gpt2", asks=(Ask((1, 2, 3), 3),) * 2, at_once=2)
    reading, decoding = phases(work, "fp32", shape)
    # Of the second layer keys and values, 2·2² weights, of all six tokens, and the rest of the rows' last ones.
    assert reading == Phase(96 * 4, 2 * (48 * 6 + 8 * 6 + 40 * 2) + 2 * 2 * (9 + 9) + 4 * 2 * (3 + 3) + 2 * 10 * 2)
    # Two steps: each row attends to 4, then 5 positions; a position holds a key and a value of width 2.
    pairs = 2 * (4 + 5)
    assert decoding == Phase(2 * (96 + 10) * 4 + pairs * 2 * 2 * 2 * 4, 2 * (96 + 10) * 4 + pairs * 4 * 2 * 2)


def test_an_encoders_floor_by_hand() -> None:
    shape = {"width": 2, "layers": 2, "vocabulary": 5, "inner": 4}
    work = Work(name="w", title="", model="bert", asks=(Ask((1, 2, 3)), Ask((1,))), at_once=2)
    operations = 2 * (32 * 4 + 8 * 4 + 24 * 2) + 4 * 2 * (9 + 1) + 4 * 2 * (3 + 1)
    assert phases(work, "int8", shape) == [Phase(64, operations)]


def test_smaller_weights_lower_the_floor_and_more_work_raises_it() -> None:
    one, many = make_work("gpt2-1"), make_work("gpt2-queue")
    assert floor_s(one, "int8", LIMITS) < floor_s(one, "bf16", LIMITS) < floor_s(one, "fp32", LIMITS)
    assert floor_s(many, "int8", LIMITS) > floor_s(one, "int8", LIMITS)


def test_four_beams_need_more_than_greedy_for_the_same_requests() -> None:
    asks = make_work("marian-beam").asks
    works = [Work(name="m", title="", model="marian", asks=asks, at_once=8, beams=beams) for beams in (1, 4)]
    greedy, beam = (floor_s(work, "fp32", LIMITS) for work in works)
    assert beam > 2 * greedy
