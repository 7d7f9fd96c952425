"""CTranslate2 in static batches, and as the server that one can make of them: collect what waits, run it to the end.

Everything is granted that it can do: rows stop when they have what they asked for (it drops them from the batch),
and tokens count as received when they are produced, not when the batch ends.
"""

import json
import time
from pathlib import Path
from typing import Any

import ctranslate2
from ctranslate2.converters import TransformersConverter
from transformers import BertConfig

from benchmarks.runners.arrivals import Stopwatch
from benchmarks.runners.runner import NotHosted, Trace
from benchmarks.workloads import Work

TYPES = {"int8": "int8", "fp32": "float32"}
ENGINES: dict[str, Any] = {
    "gpt2": ctranslate2.Generator,
    "bert": ctranslate2.Encoder,
    "marian": ctranslate2.Translator,
}


def converted(folder: Path, model: str, kind: str) -> Path:
    """The checkpoint in CTranslate2's format, beside the checkpoint; made first when it is not there."""
    target = folder.with_name(f"{folder.name}-ctranslate2-{kind}")
    if not target.is_dir():
        if model == "bert" and not hasattr(BertConfig, "position_embedding_type"):
            BertConfig.position_embedding_type = "absolute"  # transformers 5 lost it; the converter asks for it
        TransformersConverter(str(folder)).convert(str(target), quantization=kind, force=True)
    return target


def vocabulary_of(folder: Path, model: str) -> list[str]:
    """Tokens by id: CTranslate2 takes strings."""
    if model == "bert":
        return []
    by_token: dict[str, int] = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    return sorted(by_token, key=lambda token: by_token[token])


class Ctranslate2:
    """See Runner."""

    def __init__(self, precision: str) -> None:
        self._precision = precision
        self._engine: Any = None
        self._vocabulary: list[str] = []

    def load(self, folder: Path, *, model: str) -> str:
        """See Runner.load."""
        kind = TYPES.get(self._precision)
        if kind is None:
            raise NotHosted(f"CTranslate2 has no {self._precision} for this CPU")
        self._vocabulary = vocabulary_of(folder, model)
        path = converted(folder, model, kind)
        self._engine = ENGINES[model](str(path), device="cpu", compute_type=kind, inter_threads=1)
        return str(self._engine.compute_type)

    def run(self, work: Work) -> Trace:
        """See Runner.run."""
        watch = Stopwatch(work)
        if work.rate is None:
            for batch in work.batches():
                self._batch(work, batch, watch)
            return watch.trace()
        left = list(range(len(work.asks)))
        while left:
            time.sleep(max(0.0, watch.arrival_s(left[0]) - watch.elapsed_s))
            waiting = [place for place in left if watch.arrival_s(place) <= watch.elapsed_s][: work.at_once]
            left = left[len(waiting) :]
            self._batch(work, waiting, watch)
        return watch.trace()

    def _batch(self, work: Work, places: list[int], watch: Stopwatch) -> None:
        if work.is_encoding:
            self._engine.forward_batch([list(work.asks[place].ids) for place in places])
            for place in places:
                watch.received(place, 1)
            return
        tokens = [[self._vocabulary[i] for i in work.asks[place].ids] for place in places]
        if work.model == "gpt2":
            self._generate(work, places, tokens, watch)
            return
        wanted = max(work.asks[place].output_tokens for place in places)
        found = self._engine.translate_batch(
            tokens, beam_size=work.beams, max_decoding_length=wanted, min_decoding_length=wanted, max_batch_size=0
        )
        for place, result in zip(places, found, strict=True):
            watch.received(place, len(result.hypotheses[0]))

    def _generate(self, work: Work, places: list[int], tokens: list[list[str]], watch: Stopwatch) -> None:
        """One call; its prompts are read together up to the shortest, the rest of the longer ones by its own loop."""
        wanted = [work.asks[place].output_tokens for place in places]
        got = [0] * len(places)

        def received(step: Any) -> bool:
            got[step.batch_id] += 1
            watch.received(places[step.batch_id], 1)
            return got[step.batch_id] == wanted[step.batch_id]

        self._engine.generate_batch(
            tokens, max_length=max(wanted), min_length=max(wanted), include_prompt_in_result=False, sampling_topk=1,
            beam_size=1, callback=received,
        )  # fmt: skip

    def close(self) -> None:
        """See Runner.close."""
        self._engine = None


def make(precision: str) -> Ctranslate2:
    """See make_runner."""
    return Ctranslate2(precision)
