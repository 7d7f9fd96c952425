"""The kernels against torch's own operations, and a row by itself against the same row in company, bit for bit."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from app.engine.compute.activations import ACTIVATIONS
from app.engine.compute.attention import attend_cached, attend_one, attend_packed, split_heads
from app.engine.compute.cache import SlotCache, Span, StepTokens
from app.engine.compute.kernels import HAS_FMA, linear, mixing, rows, set_threads, threads
from app.engine.compute.kernels.sixteen import IN_16_BITS, INPUTS_OF
from app.engine.compute.layers import Fp32Linear, Int8Linear, KernelNorm, PlainLinear, Tail, make_linear, mixed
from app.engine.compute.post_norm import Block, Layers
from app.engine.jobs import Precision

CASES = settings(max_examples=25, deadline=None)
needs_fma = pytest.mark.skipif(not HAS_FMA, reason="this processor has no AVX2")


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@needs_fma
@pytest.mark.parametrize("name", [None, *sorted(ACTIVATIONS)])
@pytest.mark.parametrize(("count", "inputs", "outputs"), [(1, 32, 5), (7, 48, 33), (300, 20, 64), (50, 600, 70)])
def test_a_packed_linear_layer_gives_the_values_of_torchs(
    name: str | None, count: int, inputs: int, outputs: int
) -> None:
    weight, bias, x, add = drawn(outputs, inputs), drawn(outputs), drawn(count, inputs), drawn(count, outputs)
    act = ACTIVATIONS[name] if name else None
    expected = PlainLinear(weight, bias)(x, act, add)
    close = partial(torch.testing.assert_close, rtol=1e-5, atol=2e-5 * max(1, inputs / 100))
    close(Fp32Linear(weight, bias)(x, act, add), expected)
    close(Fp32Linear(weight, None)(x), PlainLinear(weight, None)(x))


def unpack(layer: Int8Linear) -> None:
    """Give the layer what it has where nothing is packed: from now on it goes through `_int_mm`."""
    panels = layer.panels ^ -128 if IN_16_BITS else layer.panels
    layer.columns = panels.transpose(1, 2).reshape(len(layer.bias), -1).T.contiguous()


@needs_fma
@given(
    count=st.integers(1, 70),
    inputs=st.integers(1, 40) | st.sampled_from([64, 80]),
    outputs=st.integers(1, 70),
    seed=st.integers(0, 99),
)
@CASES
def test_int8_sums_are_the_integers_of_int_mm(count: int, inputs: int, outputs: int, seed: int) -> None:
    inputs *= INPUTS_OF
    layer = Int8Linear(drawn(outputs, inputs, seed=seed), drawn(outputs), mixes=True)
    x, add = drawn(count, inputs, seed=seed + 1) + 0.5, drawn(count, outputs)
    found = layer(x, add=add)
    unpack(layer)
    torch.testing.assert_close(found, layer(x, add=add), rtol=1e-6, atol=1e-5)


@needs_fma
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_int8_sums_of_the_largest_numbers_are_exact(sign: float) -> None:
    layer, x = Int8Linear(sign * torch.ones(40, 3072), None), torch.ones(7, 3072)
    x[:, ::5] = -1.0  # so that rows have a zero of their own, and both ends of their numbers
    found = layer(x)
    unpack(layer)
    assert torch.equal(found, layer(x))


@pytest.mark.parametrize(("name", "most"), [("tanh", 0.012), ("relu", 0.010), ("gelu", 0.010)])
def test_int8_stays_close_to_full_precision(name: str, most: float) -> None:
    weight, x = drawn(96, 256), ACTIVATIONS[name].function(drawn(50, 256))
    expected = x @ weight.T
    error = (Int8Linear(weight, None)(x) - expected).norm() / expected.norm()
    assert error < most


@given(low=st.floats(-1e4, 1e4, width=32), high=st.floats(-1e4, 1e4, width=32), seed=st.integers(0, 99))
@CASES
def test_a_quantised_row_is_within_half_a_step_of_itself(low: float, high: float, seed: int) -> None:
    x = torch.rand(1, 37, generator=torch.Generator().manual_seed(seed)) * (high - low) + low
    quantised, scale, zero = np.empty((1, 37), np.uint8), np.empty(1, np.float32), np.empty(1, np.int32)
    linear.quantise(x.numpy(), quantised, scale, zero)
    assert 0 <= zero[0] <= 255
    error = np.abs((quantised.astype(np.int32) - zero[0]) * np.float64(scale[0]) - x.numpy())
    assert error.max() <= 0.5 * scale[0] + 1e-6 * np.abs(x.numpy()).max() + 1e-30


@pytest.mark.parametrize(("number", "name"), [(1, "gelu_new"), (2, "gelu")])
def test_what_int8_takes_for_gelu_is_near_it_wherever_a_number_lies(number: int, name: str) -> None:
    x = torch.cat([torch.linspace(-12, 12, 9600), torch.tensor([-3e4, 3e4, -0.0, 1e-20] * 8)])
    found = x.clone().numpy()
    linear.activate(found, found.size, number, True)
    torch.testing.assert_close(torch.from_numpy(found), ACTIVATIONS[name].function(x), rtol=1e-6, atol=1e-4)
    linear.activate(exact := x.clone().numpy(), len(x), number, False)
    torch.testing.assert_close(torch.from_numpy(exact), ACTIVATIONS[name].function(x), rtol=1e-6, atol=2e-6)


@needs_fma
@pytest.mark.parametrize("count", [1, 20, 260])
def test_how_many_threads_compute_changes_no_bit(count: int) -> None:
    layer, x, add, allowed = Int8Linear(drawn(330, 256), drawn(330)), drawn(count, 256), drawn(count, 330), threads()
    wide, gelu = Fp32Linear(drawn(330, 256), drawn(330)), ACTIVATIONS["gelu"]
    qkv = drawn(count, 3 * 64)

    def results() -> list[torch.Tensor]:
        attended = (attend_packed(qkv, [count], 2, 0.2, narrow) for narrow in (torch.float32, torch.bfloat16))
        return [layer(x, gelu, add), wide(x, gelu, add), *attended]

    expected = results()
    try:
        set_threads(1)
        alone = results()
    finally:
        set_threads(allowed)
    for one, many in zip(alone, expected, strict=True):
        assert torch.equal(one, many)


@needs_fma
@pytest.mark.parametrize("kind", [Fp32Linear, Int8Linear])
@pytest.mark.parametrize("inputs", [64, 600])
def test_company_never_changes_a_row_of_a_linear_layer(kind: type[Fp32Linear] | type[Int8Linear], inputs: int) -> None:
    layer, x = kind(drawn(70, inputs), drawn(70)), drawn(200, inputs)
    together = layer(x, ACTIVATIONS["gelu_new"])
    for row in (0, 11, 12, 57, 199):
        assert torch.equal(layer(x[row : row + 1], ACTIVATIONS["gelu_new"])[0], together[row])


@pytest.mark.parametrize("kind", [pytest.param(Fp32Linear, marks=needs_fma), Int8Linear])
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_row_that_is_not_finite_spoils_only_its_own_results(
    kind: type[Fp32Linear] | type[Int8Linear], poison: float
) -> None:
    layer, x = kind(drawn(40, 32), drawn(40)), drawn(20, 32)
    clean = layer(x)
    x[7, 3] = poison
    spoilt = layer(x)
    assert not torch.isfinite(spoilt[7]).any()
    others = torch.arange(20) != 7
    assert torch.equal(spoilt[others], clean[others])


@pytest.mark.parametrize("inputs", [256, 320, 384, 768])
@pytest.mark.parametrize("count", [1, 40])
def test_mixing_is_an_orthogonal_matrix_and_its_own_inverse(inputs: int, count: int) -> None:
    four = 0.5 - np.eye(4)
    sixteen, x = np.kron(four, four), drawn(count, inputs)
    expected = np.einsum("ij,bjk->bik", sixteen, x.numpy().reshape(count, 16, -1)).reshape(-1, 4) @ four
    torch.testing.assert_close(mixed(x), torch.from_numpy(expected.reshape(x.shape)).float(), rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(mixed(mixed(x)), x, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("inputs", [224, 250, 260, 296])
def test_a_layer_whose_width_cannot_be_mixed_is_packed_as_it_is(inputs: int) -> None:
    assert not mixing.can_mix(inputs)
    if inputs % INPUTS_OF == 0:
        weight, x = drawn(40, inputs), drawn(5, inputs)
        assert torch.equal(Int8Linear(weight, None, mixes=True)(x), Int8Linear(weight, None)(x))


@pytest.mark.parametrize("inputs", [INPUTS_OF, 7 * INPUTS_OF])
def test_a_width_that_int8_kernels_do_not_take_is_refused_and_the_layer_stays_in_fp32(inputs: int) -> None:
    assert isinstance(make_linear(drawn(5, inputs), None, precision=Precision.INT8), Int8Linear)
    inputs += INPUTS_OF // 2
    assert not isinstance(make_linear(drawn(5, inputs), None, precision=Precision.INT8), Int8Linear)
    with pytest.raises(ValueError, match=f"multiple of {INPUTS_OF}"):
        Int8Linear(drawn(5, inputs), None)


@pytest.mark.parametrize("count", [1, 20, 300])
def test_an_int8_layer_that_mixes_bears_channels_that_are_far_larger_than_the_others(count: int) -> None:
    weight, bias, x = drawn(96, 384), drawn(96), drawn(count, 384, seed=1)
    x[:, [62, 63, 99]] *= 15
    expected = PlainLinear(weight, bias)(x)
    plain, mixes = ((Int8Linear(weight, bias, mixes=mixes)(x) - expected).norm() for mixes in (False, True))
    assert mixes < 0.6 * plain


@pytest.mark.parametrize("mixes", [False, True])
def test_company_never_changes_a_row_that_is_mixed(mixes: bool) -> None:
    layer, x = Int8Linear(drawn(70, 320), drawn(70), mixes=mixes), drawn(200, 320)
    together = layer(x)
    for row in (0, 11, 57, 199):
        assert torch.equal(layer(x[row : row + 1])[0], together[row])
    x[7, 3] = float("inf")
    spoilt = layer(x)
    assert not torch.isfinite(spoilt[7]).any()
    assert torch.equal(spoilt[8:], together[8:])


def drawn_block(width: int, inner: int, act: str, seed: int, *, mixes: bool) -> Block:
    tail = Tail(
        out=Int8Linear(drawn(width, width, seed=seed), drawn(width)),
        norm_read=KernelNorm(drawn(width, seed=seed), drawn(width), 1e-5),
        up=Int8Linear(drawn(inner, width, seed=seed), drawn(inner), mixes=mixes),
        act=ACTIVATIONS[act],
        down=Int8Linear(drawn(width, inner, seed=seed), drawn(width), mixes=mixes),
        norm=KernelNorm(drawn(width, seed=seed + 1), drawn(width, seed=seed + 2), 1e-5),
    )
    return Block(Int8Linear(drawn(3 * width, width, seed=seed), drawn(3 * width), mixes=mixes), tail)


@needs_fma
@pytest.mark.parametrize(
    ("width", "inner", "narrow"), [(64, 96, torch.float32), (64, 96, torch.bfloat16), (256, 320, torch.bfloat16)]
)
@given(
    lengths=st.lists(st.integers(1, 200), min_size=1, max_size=6),
    act=st.sampled_from(sorted(ACTIVATIONS)),
    count=st.sampled_from([1, 2, threads()]),
    seed=st.integers(0, 9),
    data=st.data(),
)
@CASES
def test_the_layers_of_an_encoder_in_one_kernel_are_their_parts_to_the_bit(
    width: int, inner: int, narrow: torch.dtype, lengths: list[int], act: str, count: int, seed: int,
    data: st.DataObject,
) -> None:  # fmt: skip
    blocks = [drawn_block(width, inner, act, each, mixes=mixing.can_mix(width)) for each in (seed, seed + 1)]
    layers = Layers(blocks, heads=2, scale=0.2, narrow=narrow)
    x, before = drawn(sum(lengths), width, seed=3), threads()
    attend = partial(attend_packed, lengths=lengths, heads=2, scale=0.2, narrow=narrow)
    parts = layers.through(x, attend)
    wanted = np.array(sorted(data.draw(st.sets(st.integers(0, len(x) - 1), min_size=1, max_size=80))))
    assert torch.equal(layers.through(x, attend, wanted), parts[wanted])
    set_threads(count)
    try:
        together = layers(x.clone(), lengths)
        some = layers(x.clone(), lengths, wanted)
        alone = layers(x[: lengths[0]].clone(), lengths[:1])
    finally:
        set_threads(before)
    assert torch.equal(together, parts)
    assert torch.equal(some, parts[wanted])
    assert torch.equal(alone, parts[: lengths[0]])


@pytest.mark.parametrize("count", [1, 40])
def test_the_norm_gives_torchs_values(count: int) -> None:
    x, weight, bias = drawn(count, 96) * 5 + 3, drawn(96), drawn(96)
    expected = torch.nn.functional.layer_norm(x, (96,), weight, bias, 1e-5)
    torch.testing.assert_close(KernelNorm(weight, bias, 1e-5)(x), expected, rtol=1e-5, atol=1e-5)


@given(seed=st.integers(0, 999), size=st.integers(1, 300))
@CASES
def test_the_best_token_is_the_first_of_the_largest(seed: int, size: int) -> None:
    scores = (drawn(3, size, seed=seed) * 4).round()
    scores[0, 0] = -float("inf")
    found = np.empty(3, np.int64)
    rows.best_of_rows(scores.numpy(), found)
    for row in (1, 2):
        assert found[row] == int((scores[row] == scores[row].max()).nonzero()[0])
    assert found[0] == (-1 if size == 1 else int((scores[0] == scores[0].max()).nonzero()[0]))


@pytest.mark.parametrize("first", [10, 130])
def test_zeros_of_both_signs_are_equal_scores(first: int) -> None:
    scores = torch.full((1, 200), -1.0)
    scores[0, first], scores[0, first + 5], scores[0, 195] = -0.0, 0.0, 0.0
    found = np.empty(1, np.int64)
    rows.best_of_rows(scores.numpy(), found)
    assert found[0] == first


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_poisoned_row_of_scores_has_no_best_token(bad: float) -> None:
    scores = drawn(2, 200)
    scores[1, 130] = bad
    found = np.empty(2, np.int64)
    rows.best_of_rows(scores.numpy(), found)
    assert found[0] == int(scores[0].argmax())
    assert found[1] == -1


@pytest.mark.parametrize("head_dim", [16, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cached_attention_equals_a_row_by_itself_in_torch(dtype: torch.dtype, head_dim: int) -> None:
    heads = 3
    cache = SlotCache(
        layers=1, slots=4, heads=heads, positions=40, head_dim=head_dim, dtype=dtype, device=torch.device("cpu")
    )
    qkv = drawn(37, 3 * heads * head_dim)
    spans = [Span(2, 0, 30, is_prompt=True), Span(0, 0, 1), Span(3, 0, 6, is_prompt=True)]
    found = attend_cached(qkv, StepTokens(spans, torch.device("cpu")), cache, 0, heads, 0.25)
    offset = 0
    for span in spans:
        for position in range(span.count):
            query = qkv[offset + position, : heads * head_dim].view(1, heads, head_dim)
            keys, values = (held[0, span.slot : span.slot + 1].float() for held in (cache.keys, cache.values))
            expected = attend_one(query, keys, values, torch.tensor([position + 1]), 0.25)
            torch.testing.assert_close(
                found[offset + position],
                expected.flatten(),
                **({} if dtype is torch.float32 else {"rtol": 0.02, "atol": 0.02}),
            )
        offset += span.count


@needs_fma
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@given(cuts=st.sets(st.integers(1, 69), max_size=6))
@CASES
def test_how_a_prompt_is_cut_changes_no_bit(dtype: torch.dtype, cuts: set[int]) -> None:
    heads, head_dim, count = 2, 32, 70
    device = torch.device("cpu")
    cache = SlotCache(layers=1, slots=2, heads=heads, positions=80, head_dim=head_dim, dtype=dtype, device=device)
    qkv = drawn(count, 3 * heads * head_dim)

    def read(slot: int, start: int, stop: int) -> torch.Tensor:
        tokens = StepTokens([Span(slot, start, stop - start, is_prompt=True)], device)
        return attend_cached(qkv[start:stop], tokens, cache, 0, heads, 0.2)

    whole = read(0, 0, count)
    borders = [0, *sorted(cuts), count]
    pieces = [read(1, start, stop) for start, stop in pairwise(borders)]
    assert torch.equal(torch.cat(pieces), whole)


@needs_fma
@pytest.mark.parametrize("narrow", [torch.float32, torch.bfloat16])
@given(lengths=st.lists(st.integers(1, 90), min_size=1, max_size=5))
@CASES
def test_packed_attention_equals_torchs_and_company_changes_no_bit(narrow: torch.dtype, lengths: list[int]) -> None:
    heads, head_dim = 2, 32
    qkv = drawn(sum(lengths), 3 * heads * head_dim)
    found = attend_packed(qkv, lengths, heads, 0.2, narrow)
    error = 1e-5 if narrow is torch.float32 else 0.02
    for piece, alone in zip(found.split(lengths), qkv.split(lengths), strict=True):
        assert torch.equal(piece, attend_packed(alone, [len(alone)], heads, 0.2, narrow))
        query, key, value = (split_heads(part, heads).transpose(0, 1)[None] for part in alone.chunk(3, -1))
        expected = scaled_dot_product_attention(query, key, value, scale=0.2)[0].transpose(0, 1).flatten(1)
        torch.testing.assert_close(piece, expected, rtol=error, atol=error)


@needs_fma
@pytest.mark.parametrize("narrow", [torch.float32, torch.bfloat16])
def test_a_row_that_is_not_finite_spoils_no_other_row_of_an_attention(narrow: torch.dtype) -> None:
    qkv = drawn(30, 3 * 32)
    clean = attend_packed(qkv, [10, 20], 1, 0.2, narrow)
    qkv[12, 40] = float("nan")
    spoilt = attend_packed(qkv, [10, 20], 1, 0.2, narrow)
    assert torch.equal(spoilt[:10], clean[:10])
    assert not torch.isfinite(spoilt[10:]).any()
