"""Text that no starter was trained on: hand-written passages, Python's own documentation, made opinions."""

import json
import re
from functools import cache
from pydoc_data.topics import topics
from random import Random
from typing import Any

from app.registry.catalogue import SHIPPED
from app.text.sentences import split

QUESTIONS = SHIPPED.parent / "recipes" / "question-answering" / "questions.json"
SEED = 7
CHARACTERS = 20, 400
"""Of a sentence."""
PARAGRAPH = 80, 1_200
"""So that every model reads all of it."""
NO_PROSE = re.compile(r"::=|>>>|==|\.\.\.|\*\*\*|  def ")
TERM = re.compile(r'"([A-Za-z_][\w.]*)(?:\(\))?"')
ASKED = ("What is {}?", "What does {} do?", "When is {} used?", "How is {} defined?")
THINGS = (
    "the dishwasher", "our guide", "this edition", "the second act", "the hotel's breakfast", "the new timetable",
    "their support line", "the soundtrack", "the hiking trail", "my dentist", "the refund form", "the opening chapter",
    "the battery", "the wedding band", "the museum shop", "the night train", "the landlord", "the translation",
)  # fmt: skip
FOUND = (
    "turned out to be", "was", "seemed", "is, I am told,", "has always been", "proved", "looked", "became, in the end,",
)  # fmt: skip
HOW = (
    "hardly", "rather", "not at all", "surprisingly", "anything but", "thoroughly", "a little", "more than", "never",
    "always", "by no means", "quite",
)  # fmt: skip
WORDS = (
    "charming", "noisy", "worth the wait", "a waste of an evening", "careless", "generous", "dull", "fair", "broken",
    "a pleasant surprise", "overpriced", "spotless", "clumsy", "a relief", "tiresome", "well made", "rude",
    "unforgettable",
)  # fmt: skip
AFTER = (
    "and I would go again.", "and nobody apologised.", "which my sister had predicted.", "so we left early.",
    "although it rained all week.", "and we still talk about it.", "but the price was right.", "so I wrote to them.",
)  # fmt: skip


@cache
def passages() -> list[dict[str, Any]]:
    """The 20 passages with three questions each by which the question answering starter is judged."""
    return json.loads(QUESTIONS.read_text(encoding="utf-8"))["passages"]


@cache
def paragraphs() -> list[str]:
    """Prose of the language reference that lies in every Python."""
    blocks = (" ".join(block.split()) for name in sorted(topics) for block in topics[name].split("\n\n"))
    return [
        text for text in dict.fromkeys(blocks)
        if PARAGRAPH[0] <= len(text) <= PARAGRAPH[1] and text[0].isupper() and text.endswith(".")
        and not NO_PROSE.search(text)
        and sum(letter.isalpha() or letter == " " for letter in text) > 0.85 * len(text)
    ]  # fmt: skip


def sentences_of(texts: list[str]) -> list[str]:
    """Their sentences, each once."""
    found = (one.text for text in texts for one in split(text)[1])
    return [text for text in dict.fromkeys(found) if CHARACTERS[0] <= len(text) <= CHARACTERS[1]]


def written() -> list[str]:
    """What people wrote: every sentence and question of the passages, and Python's sentences and paragraphs."""
    asked = [one["question"] for passage in passages() for one in passage["questions"]]
    python = paragraphs()
    return [*sentences_of([passage["text"] for passage in passages()]), *asked, *sentences_of(python), *python]


def opinions(count: int) -> list[str]:
    """Made sentences that judge something, many of them with a twist."""
    draw = Random(SEED)
    made: dict[str, None] = {}
    while len(made) < count:
        parts = (draw.choice(THINGS).capitalize(), draw.choice(FOUND), draw.choice(HOW), draw.choice(WORDS) + ",")
        made[" ".join((*parts, draw.choice(AFTER)))] = None
    return list(made)


def questions() -> list[tuple[str, str]]:
    """Pairs of a question and its text: the hand-written ones, and made ones about what Python's paragraphs name."""
    pairs = [(one["question"], passage["text"]) for passage in passages() for one in passage["questions"]]
    draw = Random(SEED)
    for text in paragraphs():
        for term in list(dict.fromkeys(TERM.findall(text)))[:2]:
            pairs.append((draw.choice(ASKED).format(term), text))
    return pairs
