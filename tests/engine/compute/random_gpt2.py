"""A GPT-2 of random weights, of any shape: of one that the kernel for one row takes, say."""

import torch

from app.engine.compute.families.gpt2 import Gpt2
from app.engine.compute.weights import Weights
from app.engine.jobs import Precision


def random_gpt2(
    *, width: int, heads: int, layers: int, positions: int, vocabulary: int, device: str = "cpu",
    precision: Precision = Precision.BF16,
) -> Gpt2:  # fmt: skip
    """Seeded; norms near 1 and no weight of zero, so that a part that is left out shows."""
    draw, inner = torch.Generator().manual_seed(5), 4 * width
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (vocabulary, width), "wpe.weight": (positions, width), "ln_f.weight": (width,),
        "ln_f.bias": (width,),
    }  # fmt: skip
    for layer in range(layers):
        for name, shape in {
            "ln_1.weight": (width,), "ln_1.bias": (width,), "ln_2.weight": (width,), "ln_2.bias": (width,),
            "attn.c_attn.weight": (width, 3 * width), "attn.c_attn.bias": (3 * width,),
            "attn.c_proj.weight": (width, width), "attn.c_proj.bias": (width,),
            "mlp.c_fc.weight": (width, inner), "mlp.c_fc.bias": (inner,),
            "mlp.c_proj.weight": (inner, width), "mlp.c_proj.bias": (width,),
        }.items():  # fmt: skip
            shapes[f"h.{layer}.{name}"] = shape
    deviation = 1.6 * width**-0.5
    tensors = {name: deviation * torch.randn(*shape, generator=draw) for name, shape in shapes.items()}
    for name in tensors:
        if "ln_" in name and name.endswith("weight"):
            tensors[name] += 1.0
    config = {
        "n_embd": width, "n_head": heads, "n_layer": layers, "n_positions": positions, "vocab_size": vocabulary,
        "activation_function": "gelu_new",
    }  # fmt: skip
    return Gpt2(config, Weights(tensors, precision=precision, device=torch.device(device), prefixes=()))
