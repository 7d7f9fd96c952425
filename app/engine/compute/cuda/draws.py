"""Triton kernels that choose tokens: a vocabulary is searched, or summed, in parts at once."""

import torch
import triton
import triton.language as tl

PARTS, PART_BLOCK = 16, 1024
"""Of a vocabulary, searched at once for its best token."""


@triton.jit
def _best_of_part(scores, size, of_part, values, ids, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    lane = tl.arange(0, BLOCK)
    best = tl.full((BLOCK,), float("-inf"), tl.float32)
    best_id = tl.zeros((BLOCK,), tl.int32) + size
    stop = tl.minimum(size, (part + 1) * of_part)
    for start in range(part * of_part, stop, BLOCK):
        place = start + lane
        found = tl.load(scores + row * size + place, mask=place < stop, other=float("-inf"))
        found = tl.where(found == found, found, float("inf"))  # what is no number is not finite either
        is_better = found > best
        best = tl.where(is_better, found, best)
        best_id = tl.where(is_better, place, best_id)
    largest = tl.max(best, 0)
    tl.store(values + row * COUNT + part, largest)
    tl.store(ids + row * COUNT + part, tl.min(tl.where(best == largest, best_id, size), 0))


@triton.jit
def _best_of_parts(values, ids, out, size, fed, positions, position_max, COUNT: tl.constexpr, FEEDS: tl.constexpr):
    row = tl.program_id(0)
    lane = tl.arange(0, COUNT)
    found = tl.load(values + row * COUNT + lane)
    largest = tl.max(found, 0)
    best = tl.min(tl.where(found == largest, tl.load(ids + row * COUNT + lane), size), 0)
    is_finite = (largest > float("-inf")) & (largest < float("inf"))
    tl.store(out + row, tl.where(is_finite, best, -1).to(tl.int64))
    if FEEDS:
        tl.store(fed + row, tl.where(is_finite, best, 0).to(tl.int64))
        tl.store(positions + row, tl.minimum(tl.load(positions + row) + 1, position_max))


def best_tokens(
    scores: torch.Tensor, fed: torch.Tensor | None = None, positions: torch.Tensor | None = None, position_max: int = 0
) -> torch.Tensor:
    """See choice.best_tokens; scores (rows, vocabulary) in fp32, contiguous.

    Where `fed` and `positions` (rows,) are given, they become the next step's input: the best tokens, a position on.
    """
    rows, size = scores.shape
    values = torch.empty(rows, PARTS, dtype=torch.float32, device=scores.device)
    ids = torch.empty(rows, PARTS, dtype=torch.int32, device=scores.device)
    out = torch.empty(rows, dtype=torch.long, device=scores.device)
    _best_of_part[(rows, PARTS)](
        scores, size, triton.cdiv(size, PARTS), values, ids, COUNT=PARTS, BLOCK=PART_BLOCK, num_warps=4
    )
    _best_of_parts[(rows,)](
        values, ids, out, size, fed, positions, position_max, COUNT=PARTS, FEEDS=fed is not None, num_warps=1
    )
    return out


@triton.jit
def _weights(scores, largest, temperature, least, place, size):
    found = tl.load(scores + place, mask=place < size, other=float("-inf"))
    weight = tl.exp((found - largest) / temperature)
    return tl.where(weight >= least, weight, 0.0).to(tl.float64)


@triton.jit
def _sum_part(
    scores, size, of_part, largest, temperatures, least, sums, COUNT: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    most, temperature, minimum = tl.load(largest + row), tl.load(temperatures + row), tl.load(least + row)
    stop = tl.minimum(size, (part + 1) * of_part)
    total = tl.zeros((BLOCK,), tl.float64)
    for start in range(part * of_part, stop, BLOCK):
        total += _weights(scores + row * size, most, temperature, minimum, start + tl.arange(0, BLOCK), stop)
    tl.store(sums + row * COUNT + part, tl.sum(total, 0))


@triton.jit
def _draw(
    scores, size, of_part, largest, temperatures, least, uniforms, sums, out, COUNT: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    most, temperature, minimum = tl.load(largest + row), tl.load(temperatures + row), tl.load(least + row)
    lane = tl.arange(0, COUNT)
    held = tl.load(sums + row * COUNT + lane)
    reached = tl.cumsum(held, 0)
    wanted = tl.load(uniforms + row) * tl.sum(held, 0)
    is_after = (reached > wanted) & (held > 0.0)
    last_part = tl.max(tl.where(held > 0.0, lane, 0), 0)
    part = tl.min(tl.where(is_after, lane, last_part), 0)
    before = tl.sum(tl.where(lane < part, held, 0.0), 0)
    stop = tl.minimum(size, (part + 1) * of_part)
    first = size
    last = part * of_part
    for start in range(part * of_part, stop, BLOCK):
        place = start + tl.arange(0, BLOCK)
        weight = _weights(scores + row * size, most, temperature, minimum, place, stop)
        so_far = before + tl.cumsum(weight, 0)
        first = tl.minimum(first, tl.min(tl.where((so_far > wanted) & (weight > 0.0), place, size), 0))
        last = tl.maximum(last, tl.max(tl.where(weight > 0.0, place, 0), 0))
        before += tl.sum(weight, 0)
    tl.store(out + row, tl.where(first < size, first, last).to(tl.int64))


def draw(
    scores: torch.Tensor, temperatures: torch.Tensor, least: torch.Tensor, uniforms: torch.Tensor
) -> torch.Tensor:  # fmt: skip
    """Ids (rows,) drawn from scores (rows, vocabulary) in fp32, contiguous, as choice.Draws draws without cuts.

    temperatures and least (rows,) in fp32; uniforms (rows,) in fp64.
    """
    rows, size = scores.shape
    of_part, largest = triton.cdiv(size, PARTS), scores.amax(-1)
    sums = torch.empty(rows, PARTS, dtype=torch.float64, device=scores.device)
    out = torch.empty(rows, dtype=torch.long, device=scores.device)
    _sum_part[(rows, PARTS)](
        scores, size, of_part, largest, temperatures, least, sums, COUNT=PARTS, BLOCK=PART_BLOCK, num_warps=4
    )
    _draw[(rows,)](
        scores, size, of_part, largest, temperatures, least, uniforms, sums, out, COUNT=PARTS, BLOCK=PART_BLOCK,
        num_warps=4,
    )  # fmt: skip
    return out
