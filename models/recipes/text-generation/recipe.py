"""Trains starter-stories: a small GPT-2 on everyday English, from nothing.

Writes the folder of models/starter whole: weights in float16, config, byte-level BPE tokenizer, metrics.json with the
perplexity of texts that were held out (the same grammar's: it says little beyond them).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from pathlib import Path

import torch
from corpus import texts
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast

END = "<|endoftext|>"
CONTEXT = 256
VOCABULARY = 4096
WIDTH, LAYERS, HEADS = 224, 5, 7
BATCH_ROWS = 16
RATE = 3e-3
WARM_UP_STEPS = 100
HELD_OUT_SHARE = 0.01


def make_tokenizer(corpus: list[str], output: Path) -> GPT2TokenizerFast:
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(corpus, vocab_size=VOCABULARY, min_frequency=2, special_tokens=[END], show_progress=False)
    output.mkdir(parents=True, exist_ok=True)
    bpe.save(str(output / "tokenizer.json"))
    made = GPT2TokenizerFast(tokenizer_file=str(output / "tokenizer.json"), eos_token=END, bos_token=END, unk_token=END)
    made.model_max_length = CONTEXT
    made.save_pretrained(output)
    return made


def packed(corpus: list[str], tokenizer: GPT2TokenizerFast) -> torch.Tensor:
    """All texts in a row, each ended, cut into rows of CONTEXT + 1 tokens."""
    ids: list[int] = []
    for encoded in tokenizer(corpus)["input_ids"]:
        ids += [*encoded, tokenizer.eos_token_id]
    rows = len(ids) // (CONTEXT + 1)
    return torch.tensor(ids[: rows * (CONTEXT + 1)]).view(rows, CONTEXT + 1)


def loss_of(model: GPT2LMHeadModel, rows: torch.Tensor) -> torch.Tensor:
    logits = model(rows[:, :-1]).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten())


def train(model: GPT2LMHeadModel, rows: torch.Tensor, minutes: float) -> int:
    """Returns how many tokens were read."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05, betas=(0.9, 0.95))
    began, step = time.monotonic(), 0
    while (share := (time.monotonic() - began) / (minutes * 60)) < 1:
        batch = rows[torch.randint(len(rows), (BATCH_ROWS,))]
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / WARM_UP_STEPS) * (0.02 + 0.98 * (1 + math.cos(math.pi * share)) / 2)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if step % 50 == 0:
            print(f"step {step}, {share:.0%}, loss {loss.item():.3f}", flush=True)
    return step * BATCH_ROWS * CONTEXT


@torch.no_grad()
def perplexity(model: GPT2LMHeadModel, rows: torch.Tensor) -> float:
    losses = [loss_of(model, rows[start : start + 8]).item() for start in range(0, len(rows), 8)]
    return math.exp(sum(losses) / len(losses))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wordnet", type=Path, required=True, help="wn.dict.dz of Debian's package dict-wn")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=60_000)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    random.seed(1)
    torch.manual_seed(1)
    torch.set_num_threads(chosen.threads)
    corpus = texts(chosen.wordnet, chosen.texts)
    held_out = int(len(corpus) * HELD_OUT_SHARE)
    tokenizer = make_tokenizer(corpus[held_out:], chosen.output)
    rows, test = packed(corpus[held_out:], tokenizer), packed(corpus[:held_out], tokenizer)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=CONTEXT, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=tokenizer.eos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    print(f"{model.num_parameters():,} parameters, {rows.numel():,} tokens", flush=True)
    read = train(model, rows, chosen.minutes)
    metrics = {
        "parameters": model.num_parameters(), "tokens_in_corpus": rows.numel(), "tokens_read": read,
        "held_out_perplexity": round(perplexity(model.eval(), test), 3),
    }  # fmt: skip
    model.half().save_pretrained(chosen.output)
    (chosen.output / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print(metrics, flush=True)


if __name__ == "__main__":
    main()
