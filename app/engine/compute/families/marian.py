"""Marian (Junczys-Dowmunt et al. 2018): encoder and decoder as MarianMTModel computes them (post-norm)."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from app.engine.compute import cross
from app.engine.compute.activations import Activation, activation
from app.engine.compute.attention import positions_of, store
from app.engine.compute.cache import SlotCache, StepTokens
from app.engine.compute.kernels.sixteen import IN_16_BITS, INPUTS_OF
from app.engine.compute.layers import Tail
from app.engine.compute.plain import integers
from app.engine.compute.post_norm import Block, Layers
from app.engine.compute.weights import Weights
from app.engine.jobs import Precision

MODEL_TYPE = "marian"
PREFIXES = ("model.",)
EPSILON = 1e-5
STREAM_AXES = {
    "shared.weight": 1,
    **dict.fromkeys(("q_proj.weight", "k_proj.weight", "v_proj.weight", "fc1.weight"), 1),
    **dict.fromkeys(("out_proj.weight", "out_proj.bias", "fc2.weight", "fc2.bias"), 0),
    **dict.fromkeys(
        [f"{norm}_layer_norm.{part}" for norm in ("self_attn", "encoder_attn", "final") for part in ("weight", "bias")],
        0,
    ),
}
"""Of each tensor by its last names the axis along which it holds what goes from layer to layer."""


def stream_order(width: int, precision: Precision) -> list[int] | None:
    """In which order the numbers that go from layer to layer are held; None for the checkpoint's.

    Neighbours begin as sines, or cosines, of nearly the same angle, and stay alike: products of such ones seldom fit in
    16 bits together. So two steps' numbers, whose products are summed there, come from eight parts of the width, four
    of sines and four of cosines. What a layer computes is the same (docs/decisions/0004).
    """
    if precision is not Precision.INT8 or not IN_16_BITS or width % INPUTS_OF:
        return None
    return integers(torch.arange(width).view(INPUTS_OF, -1).T.flatten())


def sinusoids(positions: int, width: int) -> torch.Tensor:
    """The position table (positions, width) of MarianSinusoidalPositionalEmbedding: sines first, then cosines."""
    half = math.ceil(width / 2)
    rates = torch.pow(10000.0, -2.0 * torch.arange(half, dtype=torch.float64) / width)
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()[:, : width - half]], dim=1).float()


def read_block(weights: Weights, name: str, width: int, inner: int, act: Activation) -> Block:
    """One encoder layer's weights, or what a decoder layer has of the same."""
    own = f"{name}.self_attn"
    qkv = weights.linear((f"{own}.q_proj", f"{own}.k_proj", f"{own}.v_proj"), width, width)
    tail = Tail(
        out=weights.linear(f"{own}.out_proj", width, width),
        norm_read=weights.norm(f"{name}.self_attn_layer_norm", width, EPSILON),
        up=weights.linear(f"{name}.fc1", width, inner),
        act=act,
        down=weights.linear(f"{name}.fc2", inner, width),
        norm=weights.norm(f"{name}.final_layer_norm", width, EPSILON),
    )
    return Block(qkv, tail)


def read_decoder_block(weights: Weights, name: str, width: int, inner: int, act: Activation) -> cross.Block:
    """One decoder layer's weights: a block, and what attends to the source after its attention."""
    own, of_source = read_block(weights, name, width, inner, act), f"{name}.encoder_attn"
    return cross.Block(
        qkv=own.qkv,
        tail=own.tail,
        query=weights.linear(f"{of_source}.q_proj", width, width),
        source=weights.linear((f"{of_source}.k_proj", f"{of_source}.v_proj"), width, width),
        out=weights.linear(f"{of_source}.out_proj", width, width),
        norm=weights.norm(f"{name}.encoder_attn_layer_norm", width, EPSILON),
    )


class Marian:
    """The weights, the encoder over packed rows and the decoder over a slot cache."""

    def __init__(self, config: dict[str, Any], weights: Weights) -> None:
        self.width: int = config["d_model"]
        self.encoder_heads: int = config["encoder_attention_heads"]
        self.decoder_heads: int = config["decoder_attention_heads"]
        self.positions_max: int = config["max_position_embeddings"]
        self.vocabulary: int = config["vocab_size"]
        self.start_id: int = config.get("decoder_start_token_id", config["pad_token_id"])
        act = activation(config.get("activation_function", "gelu"))
        order = stream_order(self.width, weights.precision)
        if order is not None:
            weights.reorder(order, STREAM_AXES)
        self.embedding_scale = math.sqrt(self.width) if config.get("scale_embedding") else 1.0
        self.device, self.narrow = weights.device, weights.narrow
        bias = weights.take("final_logits_bias", 1, self.vocabulary)[0]
        self.tokens = weights.vocabulary("shared.weight", self.vocabulary, self.width, bias=bias)
        places = sinusoids(self.positions_max, self.width)
        self.places = (places if order is None else places[:, order]).to(bias)
        blocks = [
            read_block(weights, f"encoder.layers.{layer}", self.width, config["encoder_ffn_dim"], act)
            for layer in range(config["encoder_layers"])
        ]
        scale = (self.width // self.encoder_heads) ** -0.5
        self.encoder = Layers(blocks, heads=self.encoder_heads, scale=scale, narrow=self.narrow)
        own = [
            read_decoder_block(weights, f"decoder.layers.{layer}", self.width, config["decoder_ffn_dim"], act)
            for layer in range(config["decoder_layers"])
        ]
        self.decoder = cross.Layers(own, heads=self.decoder_heads, scale=(self.width // self.decoder_heads) ** -0.5)

    def new_cache(self, slots: int) -> SlotCache:
        """Room for `slots` rows of `positions_max` tokens each; the source's keys and values take a second one."""
        return SlotCache(
            layers=len(self.decoder.blocks), slots=slots, heads=self.decoder_heads, positions=self.positions_max,
            head_dim=self.width // self.decoder_heads, dtype=self.narrow, device=self.device,
        )  # fmt: skip

    def encode(self, ids: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """Packed source ids (tokens,), tokens = sum(lengths) → memory (tokens, width)."""
        places = positions_of(lengths, ids.device)
        x = self.tokens.rows(ids) * self.embedding_scale + self.places[places]
        return self.encoder(x, lengths)

    def remember(self, memory: torch.Tensor, tokens: StepTokens, source: SlotCache) -> None:
        """Write the cross-attention keys and values of packed memory (tokens, width) into their slots."""
        for layer, block in enumerate(self.decoder.blocks):
            store(block.source(memory), 0, tokens, source, layer)

    def forward(
        self, ids: torch.Tensor, tokens: StepTokens, cache: SlotCache, source: SlotCache, sources: StepTokens
    ) -> torch.Tensor:
        """Packed target ids (tokens,) → hidden states (tokens, width).

        sources: for each token the last position of its source in `source`.
        """
        x = self.tokens.rows(ids) * self.embedding_scale + self.places[tokens.positions]
        return self.decoder(x, tokens, cache, source, sources)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states (rows, width) → scores (rows, vocabulary) in fp32."""
        return self.tokens.scores(hidden)

    def best(self, hidden: torch.Tensor, banned: Sequence[int]) -> list[int] | None:
        """See Vocabulary.best."""
        return self.tokens.best(hidden, banned)
