"""A text in sentences, with what lies between them, so that it can be put together again exactly."""

import re
from dataclasses import dataclass
from enum import StrEnum

BORDER = re.compile(
    r"""
    (?P<gap>\s*\n\s*)                                  # a line ends
    | (?<=[.!?…])(?P<plain>\s+)(?=["'“‘«(¿¡\[]?[^\Wa-z_])   # an end, a space, and no small letter after it
    | (?<=[.!?…]["'”’»)\]])(?P<quoted>\s+)(?=["'“‘«(¿¡\[]?[^\Wa-z_])
    | (?<=[。！？])(?P<wide>\s*)(?=\S)
    """,
    re.VERBOSE,
)
ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|Sr|Sra|St|Jr|vs|etc|No|Fig|Inc|Ltd|Co|Av|Exmo|Dra|pág|bzw|z\.B)|\b[A-Z]|\be\.g|\bi\.e)\.$"
)


class Split(StrEnum):
    """Where a text is cut into sentences."""

    ALL = "all"
    """At the ends of sentences and of lines."""
    NO_NEWLINES = "no-newlines"
    """At the ends of sentences only; a line's end is a space."""
    NONE = "none"
    """Nowhere: the text is one sentence."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence and the white space that follows it."""

    text: str
    gap: str


def split(text: str, mode: Split = Split.ALL) -> tuple[str, list[Sentence]]:
    """The white space before the first sentence, and the sentences. Joining all of it gives `text` again.

    (With NO_NEWLINES: `text` with spaces for line ends.)
    """
    body = text.lstrip()
    lead = text[: len(text) - len(body)]
    if mode is Split.NONE:
        whole = body.rstrip()
        return lead, [Sentence(whole, body[len(whole) :])] if whole else []
    if mode is Split.NO_NEWLINES:
        kept = body.rstrip()
        body = re.sub(r"\s*\n\s*", " ", kept) + body[len(kept) :]
    found: list[Sentence] = []
    start = 0
    for border in BORDER.finditer(body):
        if border.start() <= start or (not border["gap"] and ABBREVIATION.search(body[start : border.start()])):
            continue
        found.append(Sentence(body[start : border.start()], border.group()))
        start = border.end()
    rest = body[start:]
    if rest:
        last = rest.rstrip()
        found.append(Sentence(last, rest[len(last) :]))
    return lead, found


def join(lead: str, sentences: list[Sentence]) -> str:
    """The inverse of `split`."""
    return lead + "".join(sentence.text + sentence.gap for sentence in sentences)
