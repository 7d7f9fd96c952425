"""GPT-2 (Radford et al. 2019): a causal decoder with learned positions, as GPT2LMHeadModel computes it."""

from collections.abc import Sequence
from typing import Any

import torch

from app.engine.compute.activations import activation
from app.engine.compute.cache import SlotCache, StepTokens
from app.engine.compute.pre_norm import Block, Layers
from app.engine.compute.weights import Weights
from app.errors import VerificationFailed

MODEL_TYPE = "gpt2"
PREFIXES = ("transformer.",)


def block_of(weights: Weights, layer: int, width: int, inner: int, epsilon: float) -> Block:
    """One layer's weights."""
    name = f"h.{layer}"
    return Block(
        norm_attention=weights.norm(f"{name}.ln_1", width, epsilon),
        qkv=weights.linear(f"{name}.attn.c_attn", width, 3 * width, transposed=True),
        out=weights.linear(f"{name}.attn.c_proj", width, width, transposed=True),
        norm_mlp=weights.norm(f"{name}.ln_2", width, epsilon),
        up=weights.linear(f"{name}.mlp.c_fc", width, inner, transposed=True),
        down=weights.linear(f"{name}.mlp.c_proj", inner, width, transposed=True),
    )


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
        act = activation(config.get("activation_function", "gelu_new"))
        scale = (self.width // self.heads) ** -0.5 if config.get("scale_attn_weights", True) else 1.0
        by_layer = bool(config.get("scale_attn_by_inverse_layer_idx", False))
        scales = [scale / (layer + 1) if by_layer else scale for layer in range(self.layers)]
        self.device, self.narrow = weights.device, weights.narrow
        self.tokens = weights.vocabulary("wte.weight", self.vocabulary, self.width)
        self.places = weights.take("wpe.weight", self.positions_max, self.width)
        blocks = [block_of(weights, layer, self.width, inner, epsilon) for layer in range(self.layers)]
        norm = weights.norm("ln_f", self.width, epsilon)
        self.trunk = Layers(blocks, norm, act=act, heads=self.heads, scales=scales)
        tied = config.get("tie_word_embeddings", True) or not weights.has("lm_head.weight")
        self.head = self.tokens if tied else weights.vocabulary("lm_head.weight", self.vocabulary, self.width)

    def new_cache(self, slots: int) -> SlotCache:
        """Room for `slots` rows of `positions_max` tokens each."""
        return SlotCache(
            layers=self.layers, slots=slots, heads=self.heads, positions=self.positions_max,
            head_dim=self.width // self.heads, dtype=self.narrow, device=self.device,
        )  # fmt: skip

    def forward(self, ids: torch.Tensor, tokens: StepTokens, cache: SlotCache) -> torch.Tensor:
        """Packed ids (tokens,) → hidden states (wanted, width), after the last norm; see StepTokens."""
        return self.trunk(self.tokens.rows(ids) + self.places[tokens.positions], tokens, cache)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states (rows, width) → scores (rows, vocabulary) in fp32."""
        return self.head.scores(hidden)

    def best(self, hidden: torch.Tensor, banned: Sequence[int]) -> list[int] | None:
        """See Vocabulary.best."""
        return self.head.best(hidden, banned)
