"""python -m benchmarks.accuracy: how far bf16 and int8 are from fp32, on the starter models and text that none was
trained on (benchmarks/texts.py).
"""

import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

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
from app.text.tokenizer import Tokenizer
from benchmarks.texts import opinions, paragraphs, passages, questions, written

CPU = torch.device("cpu")
TOKENS_MAX = 60
OPINIONS, TRANSLATED = 1_000, 500
PRECISIONS = (Precision.FP32, Precision.BF16, Precision.INT8)
Loaded = Decoder | Bert
T = TypeVar("T")


def perplexity(model: Loaded, tokenizer: Tokenizer, texts: Sequence[str]) -> float:
    """Of the texts, each from its own start, in windows as long as the model reads."""
    assert isinstance(model, Decoder)
    assert isinstance(model.family, Gpt2)
    total, count = 0.0, 0
    for text in texts:
        ids = torch.tensor(tokenizer.encode(text).ids)[: model.family.positions_max]
        hidden = model.family.forward(ids, StepTokens([Span(0, 0, len(ids))], CPU), model.cache)
        scores = model.family.logits(hidden)
        total += float(torch.nn.functional.cross_entropy(scores[:-1], ids[1:], reduction="sum"))
        count += len(ids) - 1
    return math.exp(total / count)


def label(model: Loaded, tokenizer: Tokenizer, text: str) -> object:
    assert isinstance(model, Bert)
    ids = tokenizer.encode(text).ids
    return int(model.forward(torch.tensor(ids), torch.zeros(len(ids), dtype=torch.long), [len(ids)])[0].argmax())


def span(model: Loaded, tokenizer: Tokenizer, asked: tuple[str, str]) -> object:
    """The most probable start and end; (0, 0) where the text does not say."""
    assert isinstance(model, Bert)
    question, context = (tokenizer.encode_plain(text)[0] for text in asked)
    ids = [tokenizer.cls_id, *question, tokenizer.sep_id, *context, tokenizer.sep_id]
    types = [0] * (len(question) + 2) + [1] * (len(context) + 1)
    return tuple(model.forward(torch.tensor(ids), torch.tensor(types), [len(ids)])[0].argmax(-1).tolist())


def translation(model: Loaded, tokenizer: Tokenizer, text: str) -> object:
    """Its greedy translation, as token ids."""
    assert isinstance(model, Decoder)
    ids = tuple(tokenizer.encode(text).ids)
    model.read_sources([((0,), ids)])
    made = [*model.prompt_of(ids)]
    while len(made) < TOKENS_MAX and (len(made) == 1 or made[-1] != tokenizer.eos_id):
        scores = model.step([Feed(0, len(made) - 1, (made[-1],))])[1].values[0]
        scores[model.prompt_of(ids)[0]] = -math.inf
        made.append(int(scores.argmax()))
    return tuple(made)


class Subject:
    """A starter in each precision."""

    def __init__(self, name: str, head: Head) -> None:
        self.name = name
        catalogue = {model.id: model for model in load_catalogue()}
        with tempfile.TemporaryDirectory() as home:
            folder = locate(
                catalogue[name], catalogue_folder=SHIPPED.parent, home=Path(home), settings=RegistrySettings()
            )
            self.tokenizer = Tokenizer(folder)
            self.models = [
                load_model(ModelSpec(id=name, folder=str(folder), head=head, precision=kind), slots=1, device="cpu")
                for kind in PRECISIONS
            ]

    def say(self, measure: str, cells: Sequence[str]) -> None:
        print(f"| {self.name} | {measure} | {' | '.join(cells)} |", flush=True)

    def perplexities(self, what: str, texts: Sequence[str]) -> None:
        """A row of the table."""
        found = [perplexity(one.model, self.tokenizer, texts) for one in self.models]
        cells = [f"{found[0]:.2f}", *(f"{value:.2f} ({value / found[0] - 1:+.2%})" for value in found[1:])]
        self.say(f"perplexity of {len(texts):,} {what}", cells)

    def agreement(self, what: str, of: Callable[[Loaded, Tokenizer, T], object], asked: Sequence[T]) -> list[object]:
        """A row of the table; returns what fp32 gave."""
        exact, *others = [[of(one.model, self.tokenizer, each) for each in asked] for one in self.models]
        same = [sum(mine == theirs for mine, theirs in zip(exact, found, strict=True)) for found in others]
        cells = ["–", *(f"{count / len(asked):.2%} ({len(asked) - count} differ)" for count in same)]
        self.say(f"{what}, of {len(asked):,}", cells)
        return exact


@torch.inference_mode()
def main() -> None:
    print("| model | measure | fp32 | bf16 | int8 |\n|---|---|---|---|---|")
    stories = Subject("starter-stories", Head.GENERATE)
    stories.perplexities("passages", [passage["text"] for passage in passages()])
    stories.perplexities("paragraphs of Python's documentation", paragraphs())
    sentiment = Subject("starter-sentiment", Head.CLASSIFY)
    sentiment.agreement("same label as fp32, texts that people wrote", label, written())
    sentiment.agreement("same label as fp32, made opinions", label, opinions(OPINIONS))
    found = Subject("starter-qa", Head.ANSWER).agreement("same start and end as fp32", span, questions())
    translated = [text for text in written() if len(text) < 200][:TRANSLATED]
    portuguese = Subject("starter-en-pt", Head.TRANSLATE)
    portuguese.agreement("same greedy translation to the token", translation, translated)
    print(f"\nstarter-qa finds an answer to {sum(one != (0, 0) for one in found)} of them")


if __name__ == "__main__":
    main()
