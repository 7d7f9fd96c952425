"""BERT (Devlin et al. 2019): an encoder read once, with one of the heads of `compute/heads.py`."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from app.engine.compute.activations import Activation, activation
from app.engine.compute.attention import positions_of
from app.engine.compute.cuda import HAS_KERNELS
from app.engine.compute.cuda.attention import attend_rows
from app.engine.compute.cuda.graphs import TrunkGraphs
from app.engine.compute.heads import LabelHead, MaskHead, PooledHead, SpanHead, TagHead, Trunk
from app.engine.compute.layers import Tail
from app.engine.compute.plain import sent
from app.engine.compute.post_norm import Block, Layers
from app.engine.compute.weights import Weights
from app.engine.jobs import Head, Pooling

MODEL_TYPE = "bert"
PREFIXES = ("bert.",)


def read_block(weights: Weights, layer: int, *, width: int, inner: int, act: Activation, epsilon: float) -> Block:
    """One layer's weights."""
    name = f"encoder.layer.{layer}"
    own = f"{name}.attention.self"
    qkv = weights.linear((f"{own}.query", f"{own}.key", f"{own}.value"), width, width, mixes=True)
    tail = Tail(
        out=weights.linear(f"{name}.attention.output.dense", width, width),
        norm_read=weights.norm(f"{name}.attention.output.LayerNorm", width, epsilon),
        up=weights.linear(f"{name}.intermediate.dense", width, inner, mixes=True),
        act=act,
        down=weights.linear(f"{name}.output.dense", inner, width, mixes=True),
        norm=weights.norm(f"{name}.output.LayerNorm", width, epsilon),
    )
    return Block(qkv, tail)


class Bert:
    """The weights and the forward pass over packed rows."""

    def __init__(
        self, config: dict[str, Any], weights: Weights, head: Head, pooling: Sequence[Pooling] = (Pooling.MEAN,)
    ) -> None:
        self.width: int = config["hidden_size"]
        self.heads: int = config["num_attention_heads"]
        self.positions_max: int = config["max_position_embeddings"]
        self.vocabulary: int = config["vocab_size"]
        self.head = head
        self.scale = (self.width // self.heads) ** -0.5
        self.device = weights.device
        self._graphs: TrunkGraphs | None = None
        epsilon: float = config.get("layer_norm_eps", 1e-12)
        inner: int = config["intermediate_size"]
        act = activation(config.get("hidden_act", "gelu"))
        self.places = weights.take("embeddings.position_embeddings.weight", self.positions_max, self.width)
        self.types = weights.take(
            "embeddings.token_type_embeddings.weight", config.get("type_vocab_size", 2), self.width
        )
        self.norm = weights.norm("embeddings.LayerNorm", self.width, epsilon)
        layers: int = config["num_hidden_layers"]
        blocks = [
            read_block(weights, layer, width=self.width, inner=inner, act=act, epsilon=epsilon)
            for layer in range(layers)
        ]
        self.layers = Layers(blocks, heads=self.heads, scale=self.scale, narrow=weights.narrow)
        trunk = Trunk(width=self.width, vocabulary=self.vocabulary, labels=len(config.get("id2label") or {}) or 2)
        self.output = make_head(head, config, weights, trunk, tuple(pooling))
        table = "embeddings.word_embeddings.weight"
        self.tokens = None if isinstance(self.output, MaskHead) else weights.take(table, self.vocabulary, self.width)

    def forward(
        self, ids: torch.Tensor, types: torch.Tensor, lengths: Sequence[int], places: Sequence[Sequence[int]] = ()
    ) -> list[torch.Tensor]:
        """Packed ids and segment ids (tokens,), tokens = sum(lengths) → per row its scores in fp32.

        CLASSIFY: (1, labels). ANSWER: (2, positions), start and end. TAG: (positions, labels). EMBED: (1, width).
        UNMASK: (places, vocabulary), for those of the row's positions that `places` names.
        """
        wanted = self.output.wanted(lengths, places)
        embedded = partial(self._embed, ids, types)
        if self.device.type == "cpu":
            x = self.layers(embedded(positions_of(lengths, ids.device)), lengths, wanted)
            return self.output(x, lengths, places)
        x = self._graphs.run(ids, types, lengths) if self._graphs is not None else None
        if x is None:
            x = self.layers(embedded(positions_of(lengths, ids.device)), lengths)
        if wanted is not None:  # products of other sizes than those that are captured or warm would gain nothing
            x = x[sent(wanted, x.device)]
        return self.output(x, lengths, places)

    def capture(self) -> None:
        """Let passes be captured as they come, where the device can."""
        if self.device.type == "cuda" and HAS_KERNELS and self.places.dtype is torch.bfloat16:
            attend = partial(attend_rows, heads=self.heads, scale=self.scale)
            self._graphs = TrunkGraphs(
                lambda ids, types, positions, layout: self.layers.through(
                    self._embed(ids, types, positions), lambda qkv: attend(qkv, layout)
                ),
                self.device,
            )

    def _embed(self, ids: torch.Tensor, types: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Packed ids, segment ids and positions (tokens,) → (tokens, width)."""
        rows = self.output.table.rows(ids) if isinstance(self.output, MaskHead) else self._rows(ids)
        return self.norm(rows + self.types[types] + self.places[positions])

    def _rows(self, ids: torch.Tensor) -> torch.Tensor:
        assert self.tokens is not None, "only the mask head holds the table itself. This is a bug."
        return self.tokens[ids]


def make_head(
    head: Head, config: dict[str, Any], weights: Weights, trunk: Trunk, pooling: tuple[Pooling, ...]
) -> LabelHead | SpanHead | TagHead | MaskHead | PooledHead:
    """The head that a checkpoint was trained with."""
    match head:
        case Head.CLASSIFY:
            return LabelHead(weights, trunk)
        case Head.TAG:
            return TagHead(weights, trunk)
        case Head.UNMASK:
            return MaskHead(weights, trunk, config)
        case Head.EMBED:
            return PooledHead(pooling)
        case _:
            return SpanHead(weights, trunk)
