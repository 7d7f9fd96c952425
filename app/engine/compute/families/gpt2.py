"""GPT-2 (Radford et al. 2019): a causal decoder with learned positions, as GPT2LMHeadModel computes it."""

from collections.abc import Sequence
from typing import Any

import torch

from app.engine.compute.activations import activation
from app.engine.compute.attention import SlotCache, Span, attend_cached, split_heads
from app.engine.compute.weights import Linear, Norm, Weights
from app.errors import VerificationFailed

MODEL_TYPE = "gpt2"
PREFIXES = ("transformer.",)


class Block:
    """One layer's weights."""

    def __init__(self, weights: Weights, layer: int, width: int, inner: int, epsilon: float) -> None:
        name = f"h.{layer}"
        self.norm_attention: Norm = weights.norm(f"{name}.ln_1", width, epsilon)
        self.qkv: Linear = weights.linear(f"{name}.attn.c_attn", width, 3 * width, transposed=True)
        self.out: Linear = weights.linear(f"{name}.attn.c_proj", width, width, transposed=True)
        self.norm_mlp: Norm = weights.norm(f"{name}.ln_2", width, epsilon)
        self.up: Linear = weights.linear(f"{name}.mlp.c_fc", width, inner, transposed=True)
        self.down: Linear = weights.linear(f"{name}.mlp.c_proj", inner, width, transposed=True)


class Gpt2:
    """The weights and the forward pass; the cache belongs to the caller."""

    def __init__(self, config: dict[str, Any], weights: Weights) -> None:
        if config.get("add_cross_attention"):
            raise VerificationFailed("a GPT-2 with cross attention is not a text generator; use another checkpoint")
        self.width: int = config["n_embd"]
        self.heads: int = config["n_head"]
        self.layers: int = config["n_layer"]
        self.positions_max: int = config["n_positions"]
        self.vocabulary: int = config["vocab_size"]
        epsilon: float = config.get("layer_norm_epsilon", 1e-5)
        inner: int = config.get("n_inner") or 4 * self.width
        self.act = activation(config.get("activation_function", "gelu_new"))
        scale = (self.width // self.heads) ** -0.5 if config.get("scale_attn_weights", True) else 1.0
        by_layer = bool(config.get("scale_attn_by_inverse_layer_idx", False))
        self.scales = [scale / (layer + 1) if by_layer else scale for layer in range(self.layers)]
        self.tokens = weights.take("wte.weight", self.vocabulary, self.width)
        self.places = weights.take("wpe.weight", self.positions_max, self.width)
        self.blocks = [Block(weights, layer, self.width, inner, epsilon) for layer in range(self.layers)]
        self.norm = weights.norm("ln_f", self.width, epsilon)
        tied = config.get("tie_word_embeddings", True) or not weights.has("lm_head.weight")
        self.head = self.tokens if tied else weights.take("lm_head.weight", self.vocabulary, self.width)

    def new_cache(self, slots: int) -> SlotCache:
        """Room for `slots` rows of `positions_max` tokens each."""
        return SlotCache(
            layers=self.layers,
            slots=slots,
            heads=self.heads,
            positions=self.positions_max,
            head_dim=self.width // self.heads,
            dtype=self.tokens.dtype,
            device=self.tokens.device,
        )

    def forward(self, ids: torch.Tensor, spans: Sequence[Span], cache: SlotCache) -> torch.Tensor:
        """Packed ids (tokens,), in the order of `spans` → hidden states (tokens, width), before the head."""
        places = torch.cat([torch.arange(s.start, s.start + s.count, device=ids.device) for s in spans])
        x = self.tokens[ids] + self.places[places]
        for layer, block in enumerate(self.blocks):
            q, k, v = (split_heads(part, self.heads) for part in block.qkv(block.norm_attention(x)).chunk(3, -1))
            x = x + block.out(attend_cached(q, k, v, spans, cache, layer, self.scales[layer]))
            x = x + block.down(self.act(block.up(block.norm_mlp(x))))
        return x

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states (rows, width) → scores (rows, vocabulary) in fp32."""
        return torch.nn.functional.linear(self.norm(hidden), self.head).float()
