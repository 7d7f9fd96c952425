"""transformers as most people use it: `generate` on static, padded batches."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

from benchmarks.runners.runner import NotHosted, Trace
from benchmarks.workloads import Ask, Work

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CLASSES: dict[str, Any] = {
    "gpt2": AutoModelForCausalLM,
    "bert": AutoModelForSequenceClassification,
    "marian": AutoModelForSeq2SeqLM,
}
PAD = 0


def load_model(folder: Path, model: str, precision: str) -> Any:
    """The checkpoint in that precision, which must be said: transformers 5 would take the stored one."""
    if precision not in DTYPES:
        raise NotHosted(f"transformers has no {precision} for the CPU")
    return CLASSES[model].from_pretrained(folder, dtype=DTYPES[precision]).eval()


def padded(asks: list[Ask], *, is_left: bool) -> dict[str, torch.Tensor]:
    """Ids and mask (rows, longest); decoders are padded on the left, where generate counts positions by the mask."""
    longest = max(len(ask.ids) for ask in asks)
    ids = torch.full((len(asks), longest), PAD)
    mask = torch.zeros((len(asks), longest), dtype=torch.long)
    for row, ask in enumerate(asks):
        place = slice(longest - len(ask.ids), longest) if is_left else slice(0, len(ask.ids))
        ids[row, place] = torch.tensor(ask.ids)
        mask[row, place] = 1
    return {"input_ids": ids, "attention_mask": mask}


def generate(model: Any, name: str, asks: list[Ask], *, beams: int = 1) -> list[int]:
    """Tokens that each request received: a batch runs to its longest, and each takes its own part."""
    batch = padded(asks, is_left=name == "gpt2")
    wanted = max(ask.output_tokens for ask in asks)
    options: dict[str, Any] = {"max_new_tokens": wanted, "num_beams": beams, "do_sample": False}
    if name == "gpt2":
        options |= {"eos_token_id": None, "pad_token_id": PAD}
    else:
        options |= {"min_new_tokens": wanted}
    made = model.generate(**batch, **options)
    produced = made.shape[1] - (batch["input_ids"].shape[1] if name == "gpt2" else 1)
    return [min(produced, ask.output_tokens) for ask in asks]


class TransformersGenerate:
    """See Runner."""

    def __init__(self, precision: str) -> None:
        self._precision = precision
        self._model: Any = None

    def load(self, folder: Path, *, model: str) -> str:
        """See Runner.load."""
        self._model = load_model(folder, model, self._precision)
        if model == "gpt2":
            self._model.generation_config.eos_token_id = None
        return self._precision

    def run(self, work: Work) -> Trace:
        """See Runner.run."""
        if work.rate is not None:
            raise NotHosted("generate is no server; LitServe shows it as one")
        counts = [0] * len(work.asks)
        with torch.inference_mode():
            for batch in work.batches():
                asks = [work.asks[place] for place in batch]
                if work.is_encoding:
                    found = [1] * len(self._model(**padded(asks, is_left=False)).logits)
                else:
                    found = generate(self._model, work.model, asks, beams=work.beams)
                for place, count in zip(batch, found, strict=True):
                    counts[place] = count
        return Trace(tuple(counts))

    def close(self) -> None:
        """See Runner.close."""
        self._model = None


def make(precision: str) -> TransformersGenerate:
    """See make_runner."""
    return TransformersGenerate(precision)
