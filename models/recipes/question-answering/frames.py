"""What a frame is, and how it becomes a scene: sentences with marked slots, and questions about those slots.

The tables of frames lie in frame_table.py; verbs become frames in events.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from lexicon import Lexicon, Value

SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Frame:
    """One kind of fact.

    `slots` maps a slot's name to its kind in the lexicon, `says` are sentences, `asks` maps a slot to the questions
    which that slot answers. A pair says two facts of the frame in one sentence, often with the verb left out; its slots
    end in 1 and 2.
    """

    name: str
    slots: dict[str, str]
    says: list[str]
    asks: dict[str, list[str]]
    pairs: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class Marked:
    """A sentence and where its slots lie in it: (start, end) in characters, without the lead."""

    text: str
    spans: dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Ask:
    question: str
    slot: str


def frame(name: str, slots: str, says: str, asks: dict[str, str], pairs: str = "") -> Frame:
    """A frame from compact text: `slots` as "who:person place:city"; sentences and questions parted by "|"."""
    return Frame(
        name=name,
        slots=dict(pair.split(":") for pair in slots.split()),
        says=parted(says),
        asks={slot: parted(questions) for slot, questions in asks.items()},
        pairs=parted(pairs),
    )


def parted(text: str) -> list[str]:
    return [re.sub(r"\s+", " ", part).strip() for part in text.split("|") if part.strip()]


def fill(slots: dict[str, str], lexicon: Lexicon) -> dict[str, Value]:
    return {name: lexicon.draw(kind) for name, kind in slots.items()}


def mark(template: str, values: dict[str, Value]) -> Marked:
    """The template with its slots filled, the first letter made a capital."""
    text, spans, position = "", {}, 0
    for match in SLOT.finditer(template):
        text += template[position : match.start()]
        value = values[match.group(1)]
        text += value.lead
        spans.setdefault(match.group(1), (len(text), len(text) + len(value.core)))
        text += value.core
        position = match.end()
    text += template[position:]
    return Marked(text[0].upper() + text[1:], spans)


def ask(template: str, values: dict[str, Value]) -> str:
    """The question with its slots filled."""
    question = SLOT.sub(lambda match: values[match.group(1)].in_question, template)
    return question[0].upper() + question[1:]


def asks_of(frame: Frame, *, said: set[str]) -> list[tuple[str, str]]:
    """(question template, slot) whose answer was said and whose own slots were said too: it can be answered."""
    return [
        (template, slot)
        for slot, templates in frame.asks.items()
        for template in templates
        if slot in said and set(SLOT.findall(template)) <= said
    ]


def unsaid_asks_of(frame: Frame, *, said: set[str]) -> list[tuple[str, str]]:
    """(question template, slot) about something that this sentence left out, but whose other slots it did say."""
    return [
        (template, slot)
        for slot, templates in frame.asks.items()
        for template in templates
        if slot not in said and SLOT.findall(template) and set(SLOT.findall(template)) <= said
    ]
