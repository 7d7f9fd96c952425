"""The kernels against torch's own operations, and a row by itself against the same row in company, bit for bit."""

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
from app.engine.compute.kernels import HAS_FMA_512, HAS_VNNI_512, linear, rows
from app.engine.compute.layers import Fp32Linear, Int8Linear, KernelNorm, PlainLinear

CASES = settings(max_examples=25, deadline=None)
needs_fma = pytest.mark.skipif(not HAS_FMA_512, reason="this processor has no AVX-512")
needs_vnni = pytest.mark.skipif(not HAS_VNNI_512, reason="this processor has no AVX-512 VNNI")


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@needs_fma
@pytest.mark.parametrize("name", [None, *sorted(ACTIVATIONS)])
@pytest.mark.parametrize(("count", "inputs", "outputs"), [(1, 32, 5), (7, 48, 33), (300, 20, 64)])
def test_a_packed_linear_layer_gives_the_values_of_torchs(
    name: str | None, count: int, inputs: int, outputs: int
) -> None:
    weight, bias, x, add = drawn(outputs, inputs), drawn(outputs), drawn(count, inputs), drawn(count, outputs)
    act = ACTIVATIONS[name] if name else None
    expected = PlainLinear(weight, bias)(x, act, add)
    torch.testing.assert_close(Fp32Linear(weight, bias)(x, act, add), expected, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(Fp32Linear(weight, None)(x), PlainLinear(weight, None)(x), rtol=1e-5, atol=2e-5)


@needs_vnni
@given(count=st.integers(1, 40), inputs=st.integers(1, 40), outputs=st.integers(1, 70), seed=st.integers(0, 99))
@CASES
def test_int8_sums_are_the_integers_of_int_mm(count: int, inputs: int, outputs: int, seed: int) -> None:
    layer = Int8Linear(drawn(outputs, 4 * inputs, seed=seed), drawn(outputs))
    x = drawn(count, 4 * inputs, seed=seed + 1)
    quantised, scales = torch.empty(x.shape, dtype=torch.int8), torch.empty(count)
    offsets = np.empty(count, np.int32)
    linear.quantise(x.numpy(), quantised.numpy(), scales.numpy(), offsets)
    whole = layer.panels.transpose(1, 2).reshape(-1, 4 * inputs)[:outputs].to(torch.int16) - 128
    sums = torch._int_mm(quantised, whole.to(torch.int8).T.contiguous())
    expected = sums.float() * (scales[:, None] * layer.scales[:outputs]) + layer.bias[:outputs]
    torch.testing.assert_close(layer(x), expected, rtol=1e-6, atol=1e-6)


def test_int8_stays_close_to_full_precision() -> None:
    weight, x = drawn(96, 256), drawn(50, 256)
    expected = x @ weight.T
    error = (Int8Linear(weight, None)(x) - expected).norm() / expected.norm()
    assert error < 0.015


@needs_fma
@pytest.mark.parametrize("kind", [Fp32Linear, Int8Linear])
def test_company_never_changes_a_row_of_a_linear_layer(kind: type[Fp32Linear] | type[Int8Linear]) -> None:
    layer, x = kind(drawn(70, 64), drawn(70)), drawn(200, 64)
    together = layer(x, ACTIVATIONS["gelu_new"])
    for row in (0, 11, 12, 57, 199):
        assert torch.equal(layer(x[row : row + 1], ACTIVATIONS["gelu_new"])[0], together[row])


@pytest.mark.parametrize("kind", [Fp32Linear, Int8Linear])
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
@given(lengths=st.lists(st.integers(1, 90), min_size=1, max_size=5))
@CASES
def test_packed_attention_equals_torchs_and_company_changes_no_bit(lengths: list[int]) -> None:
    heads, head_dim = 2, 32
    qkv = drawn(sum(lengths), 3 * heads * head_dim)
    found = attend_packed(qkv, lengths, heads, 0.2)
    for piece, alone in zip(found.split(lengths), qkv.split(lengths), strict=True):
        assert torch.equal(piece, attend_packed(alone, [len(alone)], heads, 0.2))
        query, key, value = (split_heads(part, heads).transpose(0, 1)[None] for part in alone.chunk(3, -1))
        expected = scaled_dot_product_attention(query, key, value, scale=0.2)[0].transpose(0, 1).flatten(1)
        torch.testing.assert_close(piece, expected, rtol=1e-5, atol=1e-5)


@needs_fma
def test_a_row_that_is_not_finite_spoils_no_other_row_of_an_attention() -> None:
    qkv = drawn(30, 3 * 32)
    clean = attend_packed(qkv, [10, 20], 1, 0.2)
    qkv[12, 40] = float("nan")
    spoilt = attend_packed(qkv, [10, 20], 1, 0.2)
    assert torch.equal(spoilt[:10], clean[:10])
    assert not torch.isfinite(spoilt[10:]).any()
