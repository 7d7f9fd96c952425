"""Compiles the kernels into their cache. `make install` runs this, so that no start waits for a compiler."""

import time
from collections.abc import Callable

import torch

from app.engine.compute import cross, pre_norm
from app.engine.compute.activations import GELU
from app.engine.compute.attention import attend_cached, attend_packed
from app.engine.compute.beams import best_tokens
from app.engine.compute.cache import SlotCache, Span, StepTokens
from app.engine.compute.choice import Scores
from app.engine.compute.kernels import threads
from app.engine.compute.kernels.mixing import INPUTS_LEAST
from app.engine.compute.layers import TILED_ROWS, PackedLinear, Tail, make_linear, make_norm
from app.engine.compute.post_norm import Block, Layers
from app.engine.compute.sampling import Sampler, draw
from app.engine.jobs import Precision, Sampling

WIDTH = 32
CPU = torch.device("cpu")


def layers(precision: Precision) -> None:
    """A norm, and a linear layer with and without a residual; of few rows and of many; and an encoder's layer."""
    width = WIDTH
    norm = make_norm(torch.ones(width), torch.ones(width), 1e-5, precision=precision)
    layer, qkv = (make_linear(torch.ones(outputs, width), None, precision=precision) for outputs in (width, 3 * width))
    make_linear(torch.ones(1, INPUTS_LEAST), None, precision=precision, mixes=True)
    for count in (2, TILED_ROWS * threads()):
        x = torch.ones(count, width)
        norm(x)
        layer(x)
        layer(x, add=x)
    if isinstance(layer, PackedLinear) and layer.is_packed:
        layer.best(torch.ones(1, width), ())
    block = Block(qkv, Tail(out=layer, norm_read=norm, up=layer, act=GELU, down=layer, norm=norm))
    narrow = torch.float32 if precision is Precision.FP32 else torch.bfloat16
    Layers([block], heads=1, scale=1.0, narrow=narrow)(x, [len(x)])


def attention(dtype: torch.dtype) -> None:
    """A prompt of one token, a token by itself, and an input that is read whole."""
    cache = SlotCache(layers=1, slots=2, heads=1, positions=2, head_dim=WIDTH, dtype=dtype, device=CPU)
    cache.copy_slots([0], [1], 1)
    for is_prompt in (True, False):
        tokens = StepTokens([Span(0, 0, 1, is_prompt)], CPU)
        attend_cached(torch.ones(1, 3 * WIDTH), tokens, cache, 0, 1, 1.0)
    attend_packed(torch.ones(1, 3 * WIDTH), [1], 1, 1.0, dtype)


def step(precision: Precision) -> None:
    """A token of each row through a decoder's layers, and a prompt."""
    width = WIDTH
    norm = make_norm(torch.ones(width), torch.ones(width), 1e-5, precision=precision)
    qkv, *others = (
        make_linear(torch.ones(outputs, width), None, precision=precision) for outputs in (3 * width, *[width] * 3)
    )
    block = pre_norm.Block(norm, qkv, others[0], norm, *others[1:])
    narrow = torch.float32 if precision is Precision.FP32 else torch.bfloat16
    many = TILED_ROWS * threads()
    cache = SlotCache(layers=1, slots=1, heads=1, positions=many, head_dim=width, dtype=narrow, device=CPU)
    layers = pre_norm.Layers([block], norm, act=GELU, heads=1, scales=[1.0])
    for span in (Span(0, 0, 1), Span(0, 0, many, is_prompt=True)):
        layers(torch.ones(span.count, width), StepTokens([span], CPU), cache)


def translation(precision: Precision) -> None:
    """A token of a row through the layers of a decoder that reads a source."""
    width = WIDTH
    norm = make_norm(torch.ones(width), torch.ones(width), 1e-5, precision=precision)
    qkv, layer = (make_linear(torch.ones(outputs, width), None, precision=precision) for outputs in (3 * width, width))
    tail = Tail(out=layer, norm_read=norm, up=layer, act=GELU, down=layer, norm=norm)
    narrow = torch.float32 if precision is Precision.FP32 else torch.bfloat16
    own, source = (
        SlotCache(layers=1, slots=1, heads=1, positions=2, head_dim=width, dtype=narrow, device=CPU) for _ in range(2)
    )
    layers = cross.Layers([cross.Block(qkv, tail, layer, layer, layer, norm)], heads=1, scale=1.0)
    tokens = StepTokens([Span(0, 0, 1)], CPU)
    layers(torch.ones(1, width), tokens, own, source, tokens)


def draws() -> None:
    """A greedy and a sampled token, and the best of a hypothesis."""
    best_tokens(torch.zeros(1, 8), (), 2)
    for search in (Sampling(temperature=0.0), Sampling(top_k=2, top_p=0.9, seed=0)):
        draw([Sampler(search, (0,), logprobs=None)], Scores(torch.zeros(1, 8)), [None])


def main() -> None:
    work: list[tuple[str, Callable[[], None]]] = [
        (f"linear layers in {kind.value}", lambda kind=kind: layers(kind)) for kind in (Precision.FP32, Precision.INT8)
    ]
    for dtype in (torch.float32, torch.bfloat16):
        work.append((f"attention, {str(dtype).removeprefix('torch.')}", lambda dtype=dtype: attention(dtype)))
    work += [
        (f"a decoder's step in {kind.value}", lambda kind=kind: step(kind)) for kind in (Precision.FP32, Precision.INT8)
    ]
    work += [
        (f"a translation's step in {kind.value}", lambda kind=kind: translation(kind))
        for kind in (Precision.FP32, Precision.INT8)
    ]
    work.append(("draws", draws))
    for place, (name, compile_it) in enumerate(work, 1):
        began_s = time.monotonic()
        compile_it()
        print(f"      {place}/{len(work)} {name}: {time.monotonic() - began_s:.1f} s", flush=True)


if __name__ == "__main__":
    main()
