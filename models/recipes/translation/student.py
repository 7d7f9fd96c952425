"""The teacher (Mozilla's tiny model with its SSRU sublayers) and the student (the same with self-attention), in torch."""

from __future__ import annotations

from pathlib import Path

import torch
from app.registry.assemble.bergamot import read_binary, to_marian
from torch import nn
from torch.nn import functional
from transformers import MarianConfig, MarianMTModel

WIDTH = 256
HEADS = 8
NEVER = -1e9


def build_student(weights: Path) -> MarianMTModel:
    """A MarianMTModel with the package's weights; decoder self-attention starts as the SSRU's input matrix."""
    source = read_binary(weights)
    pad = source["Wemb"].shape[0]
    config = MarianConfig(
        vocab_size=pad + 1, d_model=WIDTH, encoder_layers=6, decoder_layers=2, encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS, encoder_ffn_dim=1536, decoder_ffn_dim=1536, activation_function="relu",
        dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, scale_embedding=True,
        max_position_embeddings=512, pad_token_id=pad, eos_token_id=0, decoder_start_token_id=pad,
        forced_eos_token_id=0, share_encoder_decoder_embeddings=True, tie_word_embeddings=True,
    )  # fmt: skip
    model = MarianMTModel(config).eval()
    named = {name: torch.from_numpy(tensor.copy()) for name, tensor in to_marian(source).items()}
    shared = named["model.shared.weight"]
    named |= {"model.encoder.embed_tokens.weight": shared, "model.decoder.embed_tokens.weight": shared}
    named["lm_head.weight"] = shared
    unexpected = model.load_state_dict(named, strict=False).unexpected_keys
    if unexpected:
        raise SystemExit(f"The package's weights have no place for {unexpected[0]}.")
    for index, layer in enumerate(model.model.decoder.layers):
        attention = layer.self_attn
        with torch.no_grad():
            attention.v_proj.weight.copy_(torch.from_numpy(source[f"decoder_l{index + 1}_rnn_W"]))
            attention.out_proj.weight.copy_(torch.eye(WIDTH))
            for projection in (attention.q_proj, attention.k_proj):
                nn.init.xavier_uniform_(projection.weight, gain=0.7)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj):
                projection.bias.zero_()
    return model.requires_grad_(False)


class Recurrence(nn.Module):
    """SSRU (Kim et al. 2019, "From research to production and back", section 3.2): a gated running mean, then ReLU."""

    def __init__(self, source: dict[str, torch.Tensor], name: str) -> None:
        super().__init__()
        self.weight = source[f"{name}_rnn_W"]
        self.gate = source[f"{name}_rnn_Wf"]
        self.gate_bias = source[f"{name}_rnn_bf"][0]

    def step(self, state: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """The next state of (rows, width)."""
        gate = torch.sigmoid(functional.linear(inputs, self.gate, self.gate_bias))
        return gate * state + (1 - gate) * functional.linear(inputs, self.weight)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """All positions of (rows, positions, width)."""
        state, states = torch.zeros_like(hidden[:, 0]), []
        for position in range(hidden.shape[1]):
            state = self.step(state, hidden[:, position])
            states.append(state)
        return torch.relu(torch.stack(states, dim=1))


class Teacher(nn.Module):
    """Mozilla's model as it is: the student's modules with recurrences in place of self-attention."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.model = build_student(weights)
        source = {name: torch.from_numpy(tensor.copy()) for name, tensor in read_binary(weights).items()}
        self.recurrences = nn.ModuleList([Recurrence(source, f"decoder_l{index + 1}") for index in range(2)])
        self.pad = self.model.config.pad_token_id

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores of every vocabulary entry."""
        return functional.linear(hidden, self.model.model.shared.weight, self.model.final_logits_bias[0])

    def embed(self, ids: torch.Tensor, start: int = 0) -> torch.Tensor:
        """Target ids (rows, positions) with their places."""
        return self.model.model.shared(ids) * WIDTH**0.5 + self.model.model.decoder.embed_positions(ids.shape, start)

    def forward(
        self, ids: torch.Tensor, encoded: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
        """The last hidden states, and of each layer what its recurrence read and what became of it."""
        hidden, seen = self.embed(ids), []
        for recurrence, layer in zip(self.recurrences, self.model.model.decoder.layers, strict=True):
            before = hidden
            hidden = layer.self_attn_layer_norm(before + recurrence(before))
            seen.append((before, hidden))
            hidden = rest_of_layer(layer, hidden, encoded, mask)
        return hidden, seen

    @torch.no_grad()
    def translate(self, encoded: torch.Tensor, mask: torch.Tensor, *, tokens_max: int) -> torch.Tensor:
        """Greedy ids (rows, tokens), padded after the end of sentence."""
        layers = self.model.model.decoder.layers
        rows = encoded.shape[0]
        states = [torch.zeros(rows, WIDTH) for _ in layers]
        current = torch.full((rows, 1), self.pad)
        is_done = torch.zeros(rows, dtype=torch.bool)
        tokens: list[torch.Tensor] = []
        for place in range(tokens_max):
            hidden = self.embed(current, place)
            for index, layer in enumerate(layers):
                states[index] = self.recurrences[index].step(states[index], hidden[:, 0])
                hidden = layer.self_attn_layer_norm(hidden + torch.relu(states[index])[:, None])
                hidden = rest_of_layer(layer, hidden, encoded, mask)
            best = self.logits(hidden)[:, 0].argmax(-1)
            best = torch.where(is_done, torch.tensor(self.pad), best)
            tokens.append(best)
            is_done |= best == 0
            if is_done.all():
                break
            current = best[:, None]
        return torch.stack(tokens, dim=1)


def rest_of_layer(layer: nn.Module, hidden: torch.Tensor, encoded: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Cross-attention and feed-forward, as both have them."""
    hidden_mask = (1.0 - mask[:, None, None, :].float()) * NEVER
    found = layer.encoder_attn(hidden_states=hidden, key_value_states=encoded, attention_mask=hidden_mask)[0]
    hidden = layer.encoder_attn_layer_norm(hidden + found)
    return layer.final_layer_norm(hidden + layer.fc2(functional.relu(layer.fc1(hidden))))


def student_layers(
    model: MarianMTModel, hidden: torch.Tensor, encoded: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """The student's decoder over embedded targets."""
    causal = causal_mask(hidden.shape[1])
    for layer in model.model.decoder.layers:
        hidden = layer.self_attn_layer_norm(
            hidden + layer.self_attn(hidden_states=hidden, attention_mask=causal)[0]
        )
        hidden = rest_of_layer(layer, hidden, encoded, mask)
    return hidden


def causal_mask(length: int) -> torch.Tensor:
    """Added to scores: no position sees a later one."""
    return torch.full((length, length), NEVER).triu(1)[None, None]
