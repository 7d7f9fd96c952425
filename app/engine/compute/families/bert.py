"""BERT (Devlin et al. 2019): an encoder read once, with transformers' head for labels or for answer spans."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch

from app.engine.compute.activations import TANH, activation
from app.engine.compute.attention import attend_packed
from app.engine.compute.layers import Linear, Norm
from app.engine.compute.weights import Weights
from app.engine.jobs import Head

MODEL_TYPE = "bert"
PREFIXES = ("bert.",)


class Block:
    """One layer's weights."""

    def __init__(self, weights: Weights, layer: int, width: int, inner: int, epsilon: float) -> None:
        name = f"encoder.layer.{layer}"
        own = f"{name}.attention.self"
        self.qkv: Linear = weights.linear((f"{own}.query", f"{own}.key", f"{own}.value"), width, width)
        self.out: Linear = weights.linear(f"{name}.attention.output.dense", width, width)
        self.norm_attention: Norm = weights.norm(f"{name}.attention.output.LayerNorm", width, epsilon)
        self.up: Linear = weights.linear(f"{name}.intermediate.dense", width, inner)
        self.down: Linear = weights.linear(f"{name}.output.dense", inner, width)
        self.norm_mlp: Norm = weights.norm(f"{name}.output.LayerNorm", width, epsilon)


class Bert:
    """The weights and the forward pass over packed rows."""

    def __init__(self, config: dict[str, Any], weights: Weights, head: Head) -> None:
        self.width: int = config["hidden_size"]
        self.heads: int = config["num_attention_heads"]
        self.positions_max: int = config["max_position_embeddings"]
        self.vocabulary: int = config["vocab_size"]
        self.head = head
        epsilon: float = config.get("layer_norm_eps", 1e-12)
        inner: int = config["intermediate_size"]
        self.act = activation(config.get("hidden_act", "gelu"))
        self.tokens = weights.take("embeddings.word_embeddings.weight", self.vocabulary, self.width)
        self.places = weights.take("embeddings.position_embeddings.weight", self.positions_max, self.width)
        self.types = weights.take(
            "embeddings.token_type_embeddings.weight", config.get("type_vocab_size", 2), self.width
        )
        self.norm = weights.norm("embeddings.LayerNorm", self.width, epsilon)
        layers: int = config["num_hidden_layers"]
        self.blocks = [Block(weights, layer, self.width, inner, epsilon) for layer in range(layers)]
        if head is Head.CLASSIFY:
            labels = len(config.get("id2label") or {}) or 2
            self.pooler = weights.linear("pooler.dense", self.width, self.width, is_exact=True)
            self.output = weights.linear("classifier", self.width, labels, is_exact=True)
        else:
            self.output = weights.linear("qa_outputs", self.width, 2, is_exact=True)

    def forward(self, ids: torch.Tensor, types: torch.Tensor, lengths: Sequence[int]) -> list[torch.Tensor]:
        """Packed ids and segment ids (tokens,), tokens = sum(lengths) → per row its scores in fp32.

        CLASSIFY: (1, labels). ANSWER: (2, positions), start and end.
        """
        places = torch.cat([torch.arange(length, device=ids.device) for length in lengths])
        x = self.norm(self.tokens[ids] + self.types[types] + self.places[places])
        scale = (self.width // self.heads) ** -0.5
        for block in self.blocks:
            x = block.norm_attention(block.out(attend_packed(block.qkv(x), lengths, self.heads, scale), add=x))
            x = block.norm_mlp(block.down(block.up(x, act=self.act), add=x))
        starts = [0, *accumulate(lengths[:-1])]
        if self.head is Head.ANSWER:
            scores = self.output(x).float().T
            return [scores[:, start : start + length] for start, length in zip(starts, lengths, strict=True)]
        scores = self.output(self.pooler(x[starts], act=TANH)).float()
        return [scores[row : row + 1] for row in range(len(starts))]
