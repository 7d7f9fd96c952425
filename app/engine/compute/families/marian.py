"""Marian (Junczys-Dowmunt et al. 2018): encoder and decoder as MarianMTModel computes them (post-norm)."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from app.engine.compute.activations import activation
from app.engine.compute.attention import SlotCache, Span, attend_cached, attend_one, attend_packed, split_heads
from app.engine.compute.weights import Linear, Norm, Weights

MODEL_TYPE = "marian"
PREFIXES = ("model.",)


def sinusoids(positions: int, width: int) -> torch.Tensor:
    """The position table (positions, width) of MarianSinusoidalPositionalEmbedding: sines first, then cosines."""
    half = math.ceil(width / 2)
    rates = torch.pow(10000.0, -2.0 * torch.arange(half, dtype=torch.float64) / width)
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()[:, : width - half]], dim=1).float()


class Attention:
    """The four projections of one attention sublayer and its layer norm."""

    def __init__(self, weights: Weights, name: str, norm: str, width: int) -> None:
        self.query: Linear = weights.linear(f"{name}.q_proj", width, width)
        self.key: Linear = weights.linear(f"{name}.k_proj", width, width)
        self.value: Linear = weights.linear(f"{name}.v_proj", width, width)
        self.out: Linear = weights.linear(f"{name}.out_proj", width, width)
        self.norm: Norm = weights.norm(norm, width, 1e-5)


class Block:
    """One encoder or decoder layer's weights."""

    def __init__(self, weights: Weights, name: str, width: int, inner: int, *, is_decoder: bool) -> None:
        self.own = Attention(weights, f"{name}.self_attn", f"{name}.self_attn_layer_norm", width)
        self.cross = (
            Attention(weights, f"{name}.encoder_attn", f"{name}.encoder_attn_layer_norm", width) if is_decoder else None
        )
        self.up: Linear = weights.linear(f"{name}.fc1", width, inner)
        self.down: Linear = weights.linear(f"{name}.fc2", inner, width)
        self.norm: Norm = weights.norm(f"{name}.final_layer_norm", width, 1e-5)


class Marian:
    """The weights, the encoder over packed rows and the decoder over a slot cache."""

    def __init__(self, config: dict[str, Any], weights: Weights) -> None:
        self.width: int = config["d_model"]
        self.encoder_heads: int = config["encoder_attention_heads"]
        self.decoder_heads: int = config["decoder_attention_heads"]
        self.positions_max: int = config["max_position_embeddings"]
        self.vocabulary: int = config["vocab_size"]
        self.start_id: int = config.get("decoder_start_token_id", config["pad_token_id"])
        self.act = activation(config.get("activation_function", "gelu"))
        self.embedding_scale = math.sqrt(self.width) if config.get("scale_embedding") else 1.0
        self.tokens = weights.take("shared.weight", self.vocabulary, self.width)
        self.bias = weights.take("final_logits_bias", 1, self.vocabulary)[0].float()
        self.places = sinusoids(self.positions_max, self.width).to(self.tokens)
        self.encoder = [
            Block(weights, f"encoder.layers.{layer}", self.width, config["encoder_ffn_dim"], is_decoder=False)
            for layer in range(config["encoder_layers"])
        ]
        self.decoder = [
            Block(weights, f"decoder.layers.{layer}", self.width, config["decoder_ffn_dim"], is_decoder=True)
            for layer in range(config["decoder_layers"])
        ]

    def new_cache(self, slots: int) -> SlotCache:
        """Room for `slots` rows of `positions_max` tokens each; the source's keys and values take a second one."""
        return SlotCache(
            layers=len(self.decoder),
            slots=slots,
            heads=self.decoder_heads,
            positions=self.positions_max,
            head_dim=self.width // self.decoder_heads,
            dtype=self.tokens.dtype,
            device=self.tokens.device,
        )

    def encode(self, ids: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """Packed source ids (tokens,), tokens = sum(lengths) → memory (tokens, width)."""
        places = torch.cat([torch.arange(length, device=ids.device) for length in lengths])
        x = self.tokens[ids] * self.embedding_scale + self.places[places]
        scale = (self.width // self.encoder_heads) ** -0.5
        for block in self.encoder:
            own = block.own
            q, k, v = (split_heads(part(x), self.encoder_heads) for part in (own.query, own.key, own.value))
            x = own.norm(own.out(attend_packed(q, k, v, lengths, scale)) + x)
            x = block.norm(block.down(self.act(block.up(x))) + x)
        return x

    def remember(self, memory: torch.Tensor, slot: int, source: SlotCache) -> None:
        """Write the cross-attention keys and values of one row's memory (positions, width) into its slot."""
        for layer, block in enumerate(self.decoder):
            assert block.cross is not None, "a decoder layer attends to its source. This is a bug."
            for held, project in ((source.keys, block.cross.key), (source.values, block.cross.value)):
                held[layer, slot, :, : len(memory)] = split_heads(project(memory), self.decoder_heads).transpose(0, 1)

    def forward(
        self,
        ids: torch.Tensor,
        spans: Sequence[Span],
        cache: SlotCache,
        source: SlotCache,
        source_lengths: torch.Tensor,
    ) -> torch.Tensor:
        """Packed target ids (tokens,), in the order of `spans` → hidden states (tokens, width).

        source_lengths: (tokens,), how many source positions the row of each token has.
        """
        places = torch.cat([torch.arange(s.start, s.start + s.count, device=ids.device) for s in spans])
        slots = [span.slot for span in spans for _ in range(span.count)]
        x = self.tokens[ids] * self.embedding_scale + self.places[places]
        scale = (self.width // self.decoder_heads) ** -0.5
        for layer, block in enumerate(self.decoder):
            own, cross = block.own, block.cross
            assert cross is not None, "a decoder layer attends to its source. This is a bug."
            q, k, v = (split_heads(part(x), self.decoder_heads) for part in (own.query, own.key, own.value))
            x = own.norm(own.out(attend_cached(q, k, v, spans, cache, layer, scale)) + x)
            read = attend_one(
                split_heads(cross.query(x), self.decoder_heads),
                source.keys[layer, slots],
                source.values[layer, slots],
                source_lengths,
                scale,
            )
            x = cross.norm(cross.out(read.reshape(x.shape)) + x)
            x = block.norm(block.down(self.act(block.up(x))) + x)
        return x

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states (rows, width) → scores (rows, vocabulary) in fp32."""
        return torch.nn.functional.linear(hidden, self.tokens).float() + self.bias
