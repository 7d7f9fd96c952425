"""Triton kernels: attention of single tokens over the slot cache, products with few rows, sums with their norm.

What a kernel reads of a cache ends at the row's own position, so what other rows left behind it never matters.

With EARLY a kernel is started while the one before it still runs (programmatic dependent launch, compute capability
9): it lets the next one start, fetches what no kernel writes, the weights, and waits for the one before it.
"""

import functools
import math

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

WIDE_BLOCK, NARROW_BLOCK = (256, 16), (32, 1)
"""Positions of the cache that are read at a time, and by how many warps: wide for few rows, narrow where many share."""
WIDE_ROWS = 16
LANES_MAX = 4096
"""Inputs of a product with few rows, which holds whole rows of the weights in registers."""


@functools.cache
def starts_early(device: torch.device) -> bool:
    """Whether a kernel can be started while the one before it still runs."""
    return torch.version.hip is None and torch.cuda.get_device_capability(device) >= (9, 0)


@triton.jit
def _attend(
    query, query_stride, short, slots, positions, keys, values, slot_stride, head_stride, out, out_stride, width, scale,
    HEAD_DIM: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr, STORES: tl.constexpr, IS_ALL: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    head = tl.program_id(1)
    lane = tl.arange(0, LANES)
    is_lane = lane < HEAD_DIM
    column = head * HEAD_DIM + lane
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()
    if not IS_ALL:
        row = tl.load(short + row).to(tl.int32)
    position = tl.load(positions + row).to(tl.int32)
    place = tl.load(slots + row) * slot_stride + head * head_stride
    line = query + row.to(tl.int64) * query_stride
    asked = tl.load(line + column, mask=is_lane, other=0.0).to(tl.float32) * scale
    if STORES:
        key = tl.load(line + width + column, mask=is_lane, other=0.0).to(keys.dtype.element_ty)
        value = tl.load(line + 2 * width + column, mask=is_lane, other=0.0).to(values.dtype.element_ty)
        tl.store(keys + place + position * HEAD_DIM + lane, key, mask=is_lane)
        tl.store(values + place + position * HEAD_DIM + lane, value, mask=is_lane)
        length = position
        largest = tl.sum(asked * key.to(tl.float32), 0)
        total = tl.full((), 1.0, tl.float32)
        read = value.to(tl.float32)
    else:
        length = position + 1
        largest = tl.full((), float("-inf"), tl.float32)
        total = tl.full((), 0.0, tl.float32)
        read = tl.zeros((LANES,), tl.float32)
    for start in range(0, length, BLOCK):
        held = start + tl.arange(0, BLOCK)
        is_held = held < length
        cells = held[:, None] * HEAD_DIM + lane[None, :]
        is_cell = is_held[:, None] & is_lane[None, :]
        keys_held = tl.load(keys + place + cells, mask=is_cell, other=0.0)
        values_held = tl.load(values + place + cells, mask=is_cell, other=0.0)
        scores = tl.sum(keys_held.to(tl.float32) * asked[None, :], 1)
        scores = tl.where(is_held, scores, float("-inf"))
        new = tl.maximum(largest, tl.max(scores, 0))
        kept = tl.exp2(largest - new)
        weights = tl.exp2(scores - new)
        total = total * kept + tl.sum(weights, 0)
        read = read * kept + tl.sum(values_held.to(tl.float32) * weights[:, None], 0)
        largest = new
    read = read / total
    tl.store(out + row.to(tl.int64) * out_stride + column, read.to(out.dtype.element_ty), mask=is_lane)


def attend(
    query: torch.Tensor, short: torch.Tensor, slots: torch.Tensor, positions: torch.Tensor, keys: torch.Tensor,
    values: torch.Tensor, scale: float, out: torch.Tensor, *, stores: bool,
) -> None:  # fmt: skip
    """The tokens `short`, at most one of a slot, each against its slot up to its own position.

    out: (tokens, width). query: (tokens, width), or with `stores` (tokens, 3 * width): the keys and values behind the
    queries are written to the slot first. keys, values: (slots, heads, positions, head_dim). short, slots, positions:
    integers; `short` in order.
    """
    _, heads, _, head_dim = keys.shape
    rows, early = short.shape[0], starts_early(query.device)
    block, warps = WIDE_BLOCK if rows <= WIDE_ROWS else NARROW_BLOCK
    _attend[(rows, heads)](
        query, query.stride(0), short, slots, positions, keys, values, keys.stride(0), keys.stride(1), out,
        out.stride(0), heads * head_dim, scale / math.log(2), HEAD_DIM=head_dim, LANES=triton.next_power_of_2(head_dim),
        BLOCK=block, STORES=stores, IS_ALL=rows == query.shape[0], EARLY=early, num_warps=warps, launch_pdl=early,
    )  # fmt: skip


@triton.jit
def _gather(
    keys, values, slots, positions, slot_stride, head_stride, packed, width, HEAD_DIM: tl.constexpr, LANES: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0)
    column = tl.arange(0, LANES)
    is_column = column < width
    place = tl.load(slots + row) * slot_stride + tl.load(positions + row) * HEAD_DIM
    place += column // HEAD_DIM * head_stride + column % HEAD_DIM
    line = packed + row.to(tl.int64) * 2 * width + column
    tl.store(line, tl.load(keys + place, mask=is_column), mask=is_column)
    tl.store(line + width, tl.load(values + place, mask=is_column), mask=is_column)


def gather(
    keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:  # fmt: skip
    """The keys and values at these places, side by side: (tokens, 2 * width)."""
    _, heads, _, head_dim = keys.shape
    width = heads * head_dim
    packed = torch.empty(slots.shape[0], 2 * width, dtype=keys.dtype, device=keys.device)
    _gather[(slots.shape[0],)](
        keys, values, slots, positions, keys.stride(0), keys.stride(1), packed, width, HEAD_DIM=head_dim,
        LANES=triton.next_power_of_2(width), num_warps=4,
    )  # fmt: skip
    return packed


@triton.jit
def _store(
    packed, stride, slots, positions, keys, values, slot_stride, head_stride, width, HEAD_DIM: tl.constexpr,
    LANES: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    column = tl.arange(0, LANES)
    is_column = column < width
    place = tl.load(slots + row) * slot_stride + tl.load(positions + row) * HEAD_DIM
    place += column // HEAD_DIM * head_stride + column % HEAD_DIM
    line = packed + row.to(tl.int64) * stride + column
    tl.store(keys + place, tl.load(line, mask=is_column).to(keys.dtype.element_ty), mask=is_column)
    tl.store(values + place, tl.load(line + width, mask=is_column).to(values.dtype.element_ty), mask=is_column)


def store(
    packed: torch.Tensor, slots: torch.Tensor, positions: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> None:
    """Keys and values, side by side in packed (tokens, 2 * width), to the tokens' places."""
    _, heads, _, head_dim = keys.shape
    width = heads * head_dim
    _store[(packed.shape[0],)](
        packed, packed.stride(0), slots, positions, keys, values, keys.stride(0), keys.stride(1), width,
        HEAD_DIM=head_dim, LANES=triton.next_power_of_2(width), num_warps=4,
    )  # fmt: skip


@triton.jit
def _add_norm(
    x, add, weight, bias, total, out, width, epsilon, LANES: tl.constexpr, KEEPS: tl.constexpr, EARLY: tl.constexpr
):  # fmt: skip
    start = tl.program_id(0).to(tl.int64) * width
    lane = tl.arange(0, LANES)
    is_lane = lane < width
    if EARLY:
        gdc_launch_dependents()
    scales = tl.load(weight + lane, mask=is_lane, other=0.0).to(tl.float32)
    offsets = tl.load(bias + lane, mask=is_lane, other=0.0).to(tl.float32)
    if EARLY:
        gdc_wait()
    both = tl.load(x + start + lane, mask=is_lane, other=0.0).to(tl.float32)
    both += tl.load(add + start + lane, mask=is_lane, other=0.0).to(tl.float32)
    rounded = both.to(out.dtype.element_ty)
    if KEEPS:
        tl.store(total + start + lane, rounded, mask=is_lane)
    both = rounded.to(tl.float32)
    mean = tl.sum(both, 0) / width
    apart = tl.where(is_lane, both - mean, 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(apart * apart, 0) / width + epsilon)
    normed = apart * inverse * scales + offsets
    tl.store(out + start + lane, normed.to(out.dtype.element_ty), mask=is_lane)


def add_norm(
    x: torch.Tensor, add: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, epsilon: float, *, keeps: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """x + add, if it `keeps` that, and its layer norm; both (rows, width), contiguous, in x's dtype."""
    rows, width = x.shape
    out = torch.empty_like(x)
    total = torch.empty_like(x) if keeps else out
    early = starts_early(x.device)
    _add_norm[(rows,)](
        x, add, weight, bias, total, out, width, epsilon, LANES=triton.next_power_of_2(width), KEEPS=keeps,
        EARLY=early, num_warps=4, launch_pdl=early,
    )  # fmt: skip
    return total, out


@triton.jit
def _few(
    x, weight, bias, out, inputs, outputs, ROWS: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr,
    HAS_BIAS: tl.constexpr, ACTIVATION: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_column = column < outputs
    lane = tl.arange(0, LANES)
    is_lane = lane < inputs
    if EARLY:
        gdc_launch_dependents()
    cells = column.to(tl.int64)[:, None] * inputs + lane[None, :]
    held = tl.load(weight + cells, mask=is_column[:, None] & is_lane[None, :], other=0.0)
    offsets = tl.load(bias + column, mask=is_column, other=0.0).to(tl.float32) if HAS_BIAS else 0.0
    if EARLY:
        gdc_wait()
    for row in tl.static_range(ROWS):
        line = tl.load(x + row * inputs + lane, mask=is_lane, other=0.0).to(tl.float32)
        found = tl.sum(held.to(tl.float32) * line[None, :], 1) + offsets
        if ACTIVATION == 1:
            inner = 1.5957691216057308 * (found + 0.044715 * found * found * found)
            found = found * tl.sigmoid(inner)
        elif ACTIVATION == 2:
            found = 0.5 * found * (1.0 + tl.erf(found * 0.7071067811865476))
        elif ACTIVATION == 3:
            found = tl.where(found > 0.0, found, found * 0.0)
        tl.store(out + row * outputs + column, found.to(out.dtype.element_ty), mask=is_column)


def linear_few(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, activation: int, dtype: torch.dtype
) -> torch.Tensor:
    """act(x W + bias) in `dtype`, (rows, outputs), for a few rows of at most LANES_MAX inputs, contiguous.

    weight: (outputs, inputs). activation: the number of activations.py, 0 to 3.
    """
    rows, inputs = x.shape
    outputs = weight.shape[0]
    out = torch.empty(rows, outputs, dtype=dtype, device=x.device)
    lanes = triton.next_power_of_2(inputs)
    block = 4 if outputs < 1024 or lanes > 1024 else 8 if outputs < 8192 else 16
    early = starts_early(x.device)
    _few[(triton.cdiv(outputs, block),)](
        x, weight, x if bias is None else bias, out, inputs, outputs, ROWS=rows, LANES=lanes, BLOCK=block,
        HAS_BIAS=bias is not None, ACTIVATION=activation, EARLY=early, num_warps=8 if lanes * block > 8192 else 4,
        launch_pdl=early,
    )  # fmt: skip
    return out


@triton.jit(do_not_specialize=["rows"])  # else another number of rows may have it compiled anew, in mid-work
def _scores(
    x, weight, out, rows, inputs, outputs, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr
):  # fmt: skip
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    lane = tl.arange(0, BLOCK_K)
    is_row, is_column = row < rows, column < outputs
    found = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, inputs, BLOCK_K):
        depth = start + lane
        is_depth = depth < inputs
        left = tl.load(x + row[:, None] * inputs + depth[None, :], mask=is_row[:, None] & is_depth[None, :], other=0.0)
        cells = column.to(tl.int64)[None, :] * inputs + depth[:, None]
        right = tl.load(weight + cells, mask=is_column[None, :] & is_depth[:, None], other=0.0)
        found = tl.dot(left, right, found)
    cells = row.to(tl.int64)[:, None] * outputs + column[None, :]
    tl.store(out + cells, found, mask=is_row[:, None] & is_column[None, :])


def scores(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x W in fp32, (rows, outputs), from bfloat16 x (rows, inputs) and weight (outputs, inputs), contiguous."""
    rows, inputs = x.shape
    outputs = weight.shape[0]
    out = torch.empty(rows, outputs, dtype=torch.float32, device=x.device)
    block = min(64, max(16, triton.next_power_of_2(rows)))
    _scores[(triton.cdiv(outputs, 64), triton.cdiv(rows, block))](
        x, weight, out, rows, inputs, outputs, BLOCK_M=block, BLOCK_N=64, BLOCK_K=128, num_warps=4, num_stages=3
    )
    return out
