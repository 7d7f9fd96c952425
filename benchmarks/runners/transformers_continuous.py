"""transformers' own continuous batching, through `generate_batch`, with the sdpa attention that runs on a CPU."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

from benchmarks.runners.runner import NotHosted, Trace
from benchmarks.runners.transformers_generate import DTYPES
from benchmarks.workloads import Work

BLOCK_TOKENS = 32


class TransformersContinuous:
    """See Runner."""

    def __init__(self, precision: str) -> None:
        self._precision = precision
        self._model: Any = None

    def load(self, folder: Path, *, model: str) -> str:
        """See Runner.load."""
        if model != "gpt2":
            raise NotHosted("continuous batching is for causal decoders only")
        if self._precision not in DTYPES:
            raise NotHosted(f"transformers has no {self._precision} for the CPU")
        load = AutoModelForCausalLM.from_pretrained
        self._model = load(folder, dtype=DTYPES[self._precision], attn_implementation="sdpa").eval()
        return self._precision

    def run(self, work: Work) -> Trace:
        """See Runner.run. One call takes one output length, so mixed lengths are not for it."""
        wanted = {ask.output_tokens for ask in work.asks}
        if work.rate is not None or len(wanted) > 1:
            raise NotHosted("generate_batch gives all requests one output length and one start")
        rows = max(len(ask.ids) for ask in work.asks) + max(wanted)
        blocks = work.at_once * (rows // BLOCK_TOKENS + 2)
        settings = ContinuousBatchingConfig(
            page_size=BLOCK_TOKENS, num_blocks=blocks, max_batch_tokens=512, use_cuda_graph=False
        )
        generation = GenerationConfig(max_new_tokens=max(wanted), do_sample=False, eos_token_id=-1, pad_token_id=0)
        with torch.inference_mode():
            found = self._model.generate_batch(
                [list(ask.ids) for ask in work.asks], generation_config=generation,
                continuous_batching_config=settings, warmup=False,
            )  # fmt: skip
        faults = [result.error for result in found.values() if result.error is not None]
        if faults or not found:
            raise NotHosted(f"it fails on this machine: {faults[0] if faults else 'no answer, see its log'}")
        return Trace(tuple(len(result.generated_tokens) for result in found.values()))

    def close(self) -> None:
        """See Runner.close."""
        self._model = None


def make(precision: str) -> TransformersContinuous:
    """See make_runner."""
    return TransformersContinuous(precision)
