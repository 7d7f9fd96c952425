"""python -m benchmarks.accuracy: how far bf16 and int8 are from fp32, on the starter models and text that none was
trained on.

The text is the 20 passages and 60 questions by which the question answering starter is judged.
"""

import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from app.engine.compute.cache import Span, StepTokens
from app.engine.compute.decode import Decoder, Feed
from app.engine.compute.families.bert import Bert
from app.engine.compute.families.gpt2 import Gpt2
from app.engine.compute.models import load_model
from app.engine.jobs import Head, ModelSpec, Precision
from app.registry.catalogue import SHIPPED, load_catalogue
from app.registry.locate import locate
from app.registry.settings import RegistrySettings
from app.text.sentences import split
from app.text.tokenizer import Tokenizer

QUESTIONS = SHIPPED.parent / "recipes" / "question-answering" / "questions.json"
CPU = torch.device("cpu")
TOKENS_MAX = 60
Loaded = Decoder | Bert


def passages() -> list[dict[str, object]]:
    return json.loads(QUESTIONS.read_text(encoding="utf-8"))["passages"]


def texts() -> list[str]:
    """Every sentence of the passages, and every question."""
    found: list[str] = []
    for passage in passages():
        found += [one.text for one in split(str(passage["text"]))[1]]
        found += [one["question"] for one in passage["questions"]]  # pyright: ignore
    return found


def perplexity(model: Loaded, tokenizer: Tokenizer) -> float:
    """Of the passages, each from its own start, in windows as long as the model reads."""
    assert isinstance(model, Decoder)
    assert isinstance(model.family, Gpt2)
    total, count = 0.0, 0
    for passage in passages():
        ids = torch.tensor(tokenizer.encode(str(passage["text"])).ids)[: model.family.positions_max]
        hidden = model.family.forward(ids, StepTokens([Span(0, 0, len(ids))], CPU), model.cache)
        scores = model.family.logits(hidden)
        total += float(torch.nn.functional.cross_entropy(scores[:-1], ids[1:], reduction="sum"))
        count += len(ids) - 1
    return math.exp(total / count)


def labels(model: Loaded, tokenizer: Tokenizer) -> list[object]:
    """The label of each text."""
    assert isinstance(model, Bert)
    return [
        int(model.forward(torch.tensor(ids), torch.zeros(len(ids), dtype=torch.long), [len(ids)])[0].argmax())
        for ids in (tokenizer.encode(text).ids for text in texts())
    ]


def spans(model: Loaded, tokenizer: Tokenizer) -> list[object]:
    """The most probable start and end for each question."""
    assert isinstance(model, Bert)
    found: list[object] = []
    for passage in passages():
        context = tokenizer.encode_plain(str(passage["text"]))[0]
        for one in passage["questions"]:  # pyright: ignore
            asked = tokenizer.encode_plain(one["question"])[0]
            ids = [tokenizer.cls_id, *asked, tokenizer.sep_id, *context, tokenizer.sep_id]
            types = [0] * (len(asked) + 2) + [1] * (len(context) + 1)
            scores = model.forward(torch.tensor(ids), torch.tensor(types), [len(ids)])[0]
            found.append(tuple(scores.argmax(-1).tolist()))
    return found


def translations(model: Loaded, tokenizer: Tokenizer) -> list[object]:
    """Greedy translations of the texts, as token ids."""
    assert isinstance(model, Decoder)
    found: list[object] = []
    for text in texts():
        ids = tuple(tokenizer.encode(text).ids)
        model.read_sources([((0,), ids)])
        made = [*model.prompt_of(ids)]
        while len(made) < TOKENS_MAX and (len(made) == 1 or made[-1] != tokenizer.eos_id):
            scores = model.step([Feed(0, len(made) - 1, (made[-1],))])[0]
            scores[model.prompt_of(ids)[0]] = -math.inf
            made.append(int(scores.argmax()))
        found.append(tuple(made))
    return found


MEASURES: dict[str, tuple[Head, Callable[[Loaded, Tokenizer], list[object]]]] = {
    "starter-sentiment": (Head.CLASSIFY, labels),
    "starter-qa": (Head.ANSWER, spans),
    "starter-en-pt": (Head.TRANSLATE, translations),
}


@torch.inference_mode()
def main() -> None:
    print("| model | measure | fp32 | bf16 | int8 |\n|---|---|---|---|---|")
    catalogue = {model.id: model for model in load_catalogue()}
    with tempfile.TemporaryDirectory() as home:
        for name in ("starter-stories", *MEASURES):
            folder = locate(
                catalogue[name], catalogue_folder=SHIPPED.parent, home=Path(home), settings=RegistrySettings()
            )
            tokenizer = Tokenizer(folder)
            head = MEASURES[name][0] if name in MEASURES else Head.GENERATE
            loaded = {
                kind: load_model(
                    ModelSpec(id=name, folder=str(folder), head=head, precision=kind), slots=1, device="cpu"
                ).model
                for kind in (Precision.FP32, Precision.BF16, Precision.INT8)
            }
            if name not in MEASURES:
                cells = [f"{perplexity(model, tokenizer):.2f}" for model in loaded.values()]
                print(f"| {name} | perplexity of {len(passages())} passages | {' | '.join(cells)} |", flush=True)
                continue
            found = [MEASURES[name][1](model, tokenizer) for model in loaded.values()]
            shares = [
                sum(one == other for one, other in zip(found[0], row, strict=True)) / len(row) for row in found[1:]
            ]
            cells = " | ".join(f"{share:.1%}" for share in shares)
            print(f"| {name} | same result as fp32, of {len(found[0])} | – | {cells} |", flush=True)


if __name__ == "__main__":
    main()
