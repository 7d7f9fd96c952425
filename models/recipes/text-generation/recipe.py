"""Trains starter-stories: a small GPT-2 on everyday English, from nothing.

Writes the folder of models/starter whole: weights in float16, config, byte-level BPE tokenizer, metrics.json with the
perplexity of texts held out from each source. The schedule goes by tokens read, so that a run may be stopped, continued
or slowed without changing its result: a constant rate, then a linear fall over the last DECAY_SHARE of the tokens.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from pathlib import Path

import torch
from corpus import Source, sources
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast

END = "<|endoftext|>"
CONTEXT = 256
VOCABULARY = 4096
WIDTH, LAYERS, HEADS = 224, 5, 7
BATCH_ROWS = 12
MATRIX_RATE, OTHER_RATE = 0.02, 3e-3
"""Of Muon, for the blocks' matrices, and of AdamW, for embeddings, norms and biases."""
WARM_UP_STEPS = 40
DECAY_SHARE = 0.45
SHARES = {"made": 0.45, "wordnet": 0.3, "austen": 0.25}
"""Of the rows read."""
CHECKPOINT_STEPS = 100


def make_tokenizer(corpus: list[str], output: Path) -> GPT2TokenizerFast:
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(corpus, vocab_size=VOCABULARY, min_frequency=2, special_tokens=[END], show_progress=False)
    output.mkdir(parents=True, exist_ok=True)
    bpe.save(str(output / "tokenizer.json"))
    made = GPT2TokenizerFast(tokenizer_file=str(output / "tokenizer.json"), eos_token=END, bos_token=END, unk_token=END)
    made.model_max_length = CONTEXT
    made.save_pretrained(output)
    return made


def packed(texts: list[str], tokenizer: GPT2TokenizerFast) -> torch.Tensor:
    """Rows of CONTEXT + 1 tokens. Each begins where a text does, as prompts do; each text is ended."""
    rows: list[list[int]] = [[]]
    for encoded in tokenizer(texts)["input_ids"]:
        if len(rows[-1]) > CONTEXT:
            rows.append([])
        rows[-1] += [*encoded, tokenizer.eos_token_id]
    return torch.tensor([row[: CONTEXT + 1] for row in rows if len(row) > CONTEXT])


def loss_of(model: GPT2LMHeadModel, rows: torch.Tensor) -> torch.Tensor:
    logits = model(rows[:, :-1]).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten())


def optimizers(model: GPT2LMHeadModel) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) learns more from few tokens than AdamW alone."""
    named = dict(model.named_parameters())
    matrices = [p for name, p in named.items() if p.ndim == 2 and ".h." in name]
    others = [p for name, p in named.items() if p.ndim != 2 or ".h." not in name]
    return [
        torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=0.05, momentum=0.95),
        torch.optim.AdamW(others, lr=OTHER_RATE, weight_decay=0.0, betas=(0.9, 0.95)),
    ]


def factor_at(step: int, steps: int) -> float:
    left = (steps - step) / (steps * DECAY_SHARE)
    return min(1.0, (step + 1) / WARM_UP_STEPS, 0.02 + 0.98 * left)


class Reader:
    """Batches of rows, each source by its share, every row once before any comes again."""

    def __init__(self, rows: dict[str, torch.Tensor]) -> None:
        self._rows = rows
        self._order: dict[tuple[str, int], list[int]] = {}

    def row(self, name: str, number: int) -> torch.Tensor:
        """The source's row in its own order of that round."""
        count = len(self._rows[name])
        key = (name, number // count)
        if key not in self._order:
            self._order[key] = random.Random(f"{key}").sample(range(count), count)
        return self._rows[name][self._order[key][number % count]]

    def batch(self, step: int) -> torch.Tensor:
        """The same rows for the same step."""
        names = random.Random(step).choices(list(SHARES), weights=list(SHARES.values()), k=BATCH_ROWS)
        found = [
            self.row(name, int(step * BATCH_ROWS * SHARES[name]) + names[:place].count(name))
            for place, name in enumerate(names)
        ]
        return torch.stack(found)


def train(model: GPT2LMHeadModel, reader: Reader, *, tokens: int, checkpoint: Path) -> None:
    """Go on from the checkpoint when there is one."""
    made, first, steps = optimizers(model), 0, tokens // (BATCH_ROWS * CONTEXT)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in made]
    if checkpoint.is_file():
        found = torch.load(checkpoint, weights_only=True)
        first = found["step"]
        model.load_state_dict(found["model"])
        for optimizer, state in zip(made, found["optimizers"], strict=True):
            optimizer.load_state_dict(state)
    total, began = 0.0, time.monotonic()
    for step in range(first, steps):
        for optimizer, rate in zip(made, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * factor_at(step, steps)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(model, reader.batch(step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in made:
            optimizer.step()
            optimizer.zero_grad()
        total += loss.item()
        if (step + 1) % 50 == 0:
            speed = 50 * BATCH_ROWS * CONTEXT / (time.monotonic() - began)
            print(f"step {step + 1} of {steps}, loss {total / 50:.3f}, {speed:.0f} tokens/s", flush=True)
            total, began = 0.0, time.monotonic()
        if (step + 1) % CHECKPOINT_STEPS == 0:
            state = {"step": step + 1, "model": model.state_dict(), "optimizers": [o.state_dict() for o in made]}
            torch.save(state, checkpoint.with_suffix(".partial"))
            checkpoint.with_suffix(".partial").replace(checkpoint)


@torch.no_grad()
def perplexity(model: GPT2LMHeadModel, rows: torch.Tensor) -> float:
    rows = rows[:200]
    losses = [loss_of(model, rows[start : start + 8]).item() for start in range(0, len(rows) // 8 * 8, 8)]
    return round(math.exp(sum(losses) / len(losses)), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wordnet", type=Path, required=True, help="wn.dict.dz of Debian's package dict-wn")
    parser.add_argument("--austen", type=Path, required=True, help="Rdata.rdb of Debian's package r-cran-janeaustenr")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="written as training goes; a run goes on from it"
    )
    parser.add_argument("--texts", type=int, default=60_000, help="how many texts the grammar makes")
    parser.add_argument("--tokens", type=int, default=6_000_000, help="how many are read")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    random.seed(1)
    torch.manual_seed(1)
    torch.set_num_threads(chosen.threads)
    corpus = sources(wordnet_path=chosen.wordnet, austen_path=chosen.austen, made_count=chosen.texts)
    tokenizer = make_tokenizer([text for source in corpus.values() for text in source.train], chosen.output)
    rows = {name: packed(shuffled(source), tokenizer) for name, source in corpus.items()}
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=CONTEXT, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=tokenizer.eos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    in_corpus = {name: found.numel() for name, found in rows.items()}
    print(f"{model.num_parameters():,} parameters, tokens {in_corpus}", flush=True)
    train(model, Reader(rows), tokens=chosen.tokens, checkpoint=chosen.checkpoint)
    model.eval()
    metrics = {
        "parameters": model.num_parameters(), "tokens_in_corpus": in_corpus, "tokens_read": chosen.tokens,
        "held_out_perplexity": {
            name: perplexity(model, packed(source.held_out, tokenizer)) for name, source in corpus.items()
        },
    }  # fmt: skip
    model.half().save_pretrained(chosen.output)
    (chosen.output / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print(metrics, flush=True)


def shuffled(source: Source) -> list[str]:
    return random.sample(source.train, len(source.train))


if __name__ == "__main__":
    main()
