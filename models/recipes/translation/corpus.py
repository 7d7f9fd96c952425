"""Sentences for distillation, and human translations to measure with. The README says where the files come from.

- dict-wn: WordNet 3.0's example sentences (WordNet licence);
- vaderSentiment's sdist: snippets of reviews, tweets and editorials (read only, never shipped);
- Debian's package descriptions in English and Brazilian Portuguese (DDTP): aligned sentences by human translators.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import html
import itertools
import lzma
import random
import re
from pathlib import Path

SNIPPETS = ("movieReviewSnippets", "amazonReviewSnippets", "tweets", "nytEditorialSnippets")
LENGTH_MIN, LENGTH_MAX = 8, 200
TEST_SHARE = 0.15
ODD = re.compile(r"[{}<>\\|_]")
SUBJECTS = "Ana;Peter;the teacher;my brother;the old man;our neighbour;the doctor;a young woman;she;he;my sister".split(";")
VERBS = "likes;bought;is reading;wants;forgot;found;has lost;needs;will bring;does not have;is looking for".split(";")
OBJECTS = "a new book;the red car;some coffee;the tickets;a glass of water;the keys;an umbrella;two apples".split(";")
PLACES = "today;in the morning;at home;on Monday;in the kitchen;last week;every day;near the station;for his son".split(";")
GREETINGS = (
    "Hello, how are you?", "Good morning!", "Thank you very much.", "Where is the nearest train station?",
    "What time is it?", "I would like a cup of tea, please.", "My name is John and I live in London.",
    "I don't understand.", "Can you help me?", "How much does it cost?", "The bill, please.", "See you tomorrow!",
)  # fmt: skip


def english(data: Path) -> list[str]:
    """English sentences of many kinds, shuffled by the seed."""
    text = re.sub(r"\s+", " ", gzip.open(data / "wn.dict.dz", "rt", encoding="utf-8", errors="replace").read())
    found = [sentence(part) for part in re.findall(r'"([^"]{15,160})"', text) if len(part.split()) >= 4]
    for name in SNIPPETS:
        path = data / f"{name}_GroundTruth.txt"
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            parts = line.split("\t")
            if len(parts) >= 3 and 4 <= len(parts[2].split()) <= 32:
                found.append(html.unescape(parts[2]).strip())
    found += [sentence(" ".join(words)) for words in itertools.product(SUBJECTS, VERBS, OBJECTS, PLACES)][::8]
    found += list(GREETINGS) * 3
    found += [source for source, _ in human_pairs(data, is_test=False)]
    return usable(found)


def sentence(text: str) -> str:
    """With a capital and an end."""
    text = text.strip()
    return text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")


def usable(sentences: list[str]) -> list[str]:
    """Without doubles and oddities, in random order."""
    kept = [re.sub(r"\s+", " ", text) for text in sentences]
    kept = [text for text in kept if LENGTH_MIN <= len(text) <= LENGTH_MAX and not ODD.search(text)]
    kept = sorted(set(kept))
    return random.sample(kept, len(kept))


def human_pairs(data: Path, *, is_test: bool) -> list[tuple[str, str]]:
    """(English, Portuguese) sentences; all of one description lie on one side of the split."""
    english_texts = descriptions(lzma.open(data / "Translation-en.xz", "rt", encoding="utf-8").read())
    others = descriptions(bz2.open(data / "Translation-pt_BR.bz2", "rt", encoding="utf-8").read())
    pairs: list[tuple[str, str]] = []
    for name, paragraphs in sorted(others.items()):
        share = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32
        source = english_texts.get(name)
        if source is None or len(source) != len(paragraphs) or (share < TEST_SHARE) != is_test:
            continue
        for ours, theirs in zip(source[1:], paragraphs[1:], strict=True):
            first = re.split(r"(?<=[.!?]) (?=[A-Z])", ours)
            second = re.split(r"(?<=[.!?]) (?=[A-ZÁÉÍÓÚÂÊÔÃÕÇ])", theirs)
            if len(first) == len(second):
                pairs += [pair for pair in zip(first, second, strict=True) if is_sound(*pair)]
    return list(dict.fromkeys(pairs))


def is_sound(source: str, target: str) -> bool:
    """A whole sentence of 7 to 25 words, translated."""
    return source != target and 7 <= len(source.split()) <= 25 and source.endswith(".") and target.endswith(".")


def descriptions(text: str) -> dict[str, list[str]]:
    """Paragraphs of each description, by its checksum; the first is the title."""
    found: dict[str, list[str]] = {}
    for stanza in text.split("\n\n"):
        name = re.search(r"^Description-md5: (\w+)", stanza, re.MULTILINE)
        body = re.search(r"^Description-[a-zA-Z_]+: ((?:.|\n)*)", stanza, re.MULTILINE)
        if name and body:
            title, *lines = body.group(1).split("\n")
            parts = re.split(r"\n \.\n", "\n".join(lines))
            found[name.group(1)] = [title, *(re.sub(r"\s+", " ", part).strip() for part in parts)]
    return found
