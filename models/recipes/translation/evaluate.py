"""Measures a student and its teacher against human translations that neither recipe nor split has let it see.

The sentences are of Debian's package descriptions (DDTP): technical text. Mozilla's teacher may have seen them.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path

import sacrebleu
import torch
from app.registry.assemble.bergamot import assemble_bergamot
from corpus import human_pairs
from recipe import encode, package_file, pieces_of, weights_file
from student import Teacher
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

BATCH_SIZE = 30
TOKENS_MAX = 90


@torch.no_grad()
def by_teacher(direction: str, texts: list[str]) -> list[str]:
    """Greedy translations by Mozilla's model."""
    teacher, pieces = Teacher(weights_file(direction)).eval(), pieces_of(direction)
    found: list[str] = []
    for start in range(0, len(texts), BATCH_SIZE):
        encoded, mask = encode(teacher, pieces, texts[start : start + BATCH_SIZE])
        rows = teacher.translate(encoded, mask, tokens_max=TOKENS_MAX).tolist()
        found += [pieces.decode([token for token in row if 0 < token < teacher.pad]) for row in rows]
    return found


def by_student(direction: str, starter: Path, texts: list[str], *, beams: int) -> list[str]:
    """Translations by the assembled checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        weights = weights_file(direction)
        spm = next(package_file(direction, "x").parent.glob("vocab.*.spm"))
        assemble_bergamot(
            package_folder=weights.parent, starter_folder=starter, target=Path(folder),
            options={"weights": weights.name, "vocabulary": spm.name},
        )  # fmt: skip
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    found: list[str] = []
    for start in range(0, len(texts), BATCH_SIZE):
        batch = tokenizer(texts[start : start + BATCH_SIZE], return_tensors="pt", padding=True)
        made = model.generate(**batch, num_beams=beams, max_new_tokens=TOKENS_MAX, max_length=None)
        found += tokenizer.batch_decode(made, skip_special_tokens=True)
    return found


def scores(found: list[str], wanted: list[str]) -> dict[str, float]:
    return {
        "bleu": round(sacrebleu.corpus_bleu(found, [wanted]).score, 1),
        "chrf": round(sacrebleu.corpus_chrf(found, [wanted]).score, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--direction", choices=["en-pt", "pt-en"], required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--starter", type=Path, required=True, help="the folder with delta.safetensors")
    parser.add_argument("--sentences", type=int, default=400)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    pairs = human_pairs(chosen.data, is_test=True)
    random.seed(3)
    pairs = random.sample(pairs, min(chosen.sentences, len(pairs)))
    if chosen.direction == "pt-en":
        pairs = [(second, first) for first, second in pairs]
    sources, wanted = [first for first, _ in pairs], [second for _, second in pairs]
    teacher = by_teacher(chosen.direction, sources)
    greedy = by_student(chosen.direction, chosen.starter, sources, beams=1)
    metrics = {
        "direction": chosen.direction, "sentences": len(pairs), "references": "human, DDTP pt_BR",
        "teacher_greedy": scores(teacher, wanted), "student_greedy": scores(greedy, wanted),
        "student_beams_4": scores(by_student(chosen.direction, chosen.starter, sources, beams=4), wanted),
        "student_against_teacher": scores(greedy, teacher),
    }  # fmt: skip
    (chosen.starter / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(metrics, indent=2))
    for source, ours, theirs in list(zip(sources, greedy, teacher, strict=True))[:5]:
        print(f"{source}\n  student {ours}\n  teacher {theirs}")


if __name__ == "__main__":
    main()
