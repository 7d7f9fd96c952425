"""What starter-stories reads: made everyday English (grammar.txt), WordNet's definitions and examples, Austen's novels.

Each source has texts that training never sees: made ones of another seed, every fiftieth of WordNet's entries, a novel.
"""

from __future__ import annotations

import gzip
import random
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

GRAMMAR = Path(__file__).parent / "grammar.txt"
SHE = "Anna Lucy Maria Clara Emma Nora Ella Rosa Julia Mia Sara Grace Jane Alice Helen Ruth".split()  # noqa: SIM905
HE = "Tom Peter Sam Leo Max Ben Jack Noah Paul Adam Oscar David John Henry George Simon".split()  # noqa: SIM905
HELD_OUT_BOOK = "NORTHANGER ABBEY"
WORDNET_HELD_OUT = 50
MADE_HELD_OUT_SEED, MADE_HELD_OUT = 9, 1500
PARAGRAPH_CHARACTERS = 900
ARTICLE = "\0"
"""Stands for a or an until the next word is known."""
ASCII_STRING = struct.pack(">I", 0x00040009)
"""Flags of an ASCII string in R's serialisation (R Internals, section 1.8)."""


@dataclass(frozen=True)
class Source:
    """Texts to read and texts to measure with."""

    train: list[str]
    held_out: list[str]


def read_grammar(path: Path = GRAMMAR) -> dict[str, list[str]]:
    lines = [
        line for line in path.read_text(encoding="utf-8").splitlines() if line.strip() and not line.startswith("#")
    ]
    rules = {line.partition(":")[0]: [part.strip() for part in line.partition(":")[2].split("|")] for line in lines}
    symbols = {symbol for parts in rules.values() for part in parts for symbol in re.findall(r"<(\w+)>", part)}
    missing = symbols - rules.keys() - {"name", "friend", "he", "him", "his", "a"}
    if missing:
        raise SystemExit(f"grammar.txt has no rule for {sorted(missing)}")
    return rules


def made(count: int, *, seed: int) -> list[str]:
    """Texts of the grammar; the same for the same seed."""
    rng, rules = random.Random(seed), read_grammar()
    texts: list[str] = []
    for _ in range(count):
        is_she = rng.random() < 0.5
        name = rng.choice(SHE if is_she else HE)
        bound = {"name": name, "friend": rng.choice([other for other in SHE + HE if other != name])}
        bound |= dict(zip(("he", "him", "his"), ("she", "her", "her") if is_she else ("he", "him", "his"), strict=True))
        text = "<text>"
        while match := re.search(r"<(\w+)>", text):
            symbol = match[1]
            found = ARTICLE if symbol == "a" else bound.get(symbol) or rng.choice(rules[symbol])
            if symbol == "child" and found == "girl" and not is_she:
                found = "boy"
            if symbol == "relative":
                bound.setdefault("rel_he", pronoun_of(found, rng))
            text = text[: match.start()] + found + text[match.end() :]
        text = re.sub(f"{ARTICLE} (?=[aeiouAEIOU])", "an ", text).replace(ARTICLE, "a")
        text = re.sub(r'(^|[.!?]"? )(")?([a-z])', lambda found: found[1] + (found[2] or "") + found[3].upper(), text)
        texts.append(re.sub(r"\^(.)", lambda found: found[1].upper(), text))
    return texts


def pronoun_of(relative: str, rng: random.Random) -> str:
    """She or he; a friend may be either."""
    if relative in ("mother", "grandmother", "sister", "aunt"):
        return "she"
    return "he" if relative in ("father", "grandfather", "brother", "uncle") else rng.choice(["she", "he"])


def wordnet(path: Path) -> Source:
    """Examples as sentences, and nouns with their definitions ("A map is ..."), of WordNet 3.0 in dictd's form."""
    text = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
    train: dict[str, None] = {}
    held_out: dict[str, None] = {}
    for index, entry in enumerate(re.split(r"\n(?=\S)", text)):
        head, _, body = entry.partition("\n")
        chosen = train if index % WORDNET_HELD_OUT else held_out
        body = re.sub(r"\s+", " ", body).strip()
        examples = [part.strip() for part in re.findall(r'"([^"]{15,160})"', body) if len(part.split()) >= 4]
        gloss = re.match(r"n (?:1)?: ([^;\[\"]{12,160})", body)
        if gloss and re.fullmatch(r"[a-z]+( [a-z]+)?", head):
            chosen[defined(head, gloss[1].strip())] = None
        for example in examples:
            chosen[example[0].upper() + example[1:] + ("" if example[-1] in ".!?" else ".")] = None
    return Source(list(train), [one for one in held_out if one not in train])


def defined(noun: str, gloss: str) -> str:
    """ "An owl is a bird of prey." Whether the noun can be counted is read off its gloss."""
    if gloss.split()[0] in ("a", "an", "one"):
        noun = ("an " if noun[0] in "aeiou" else "a ") + noun
    gloss = re.sub(r"\([^)]*\)\s*", "", gloss).strip()
    return f"{noun[0].upper()}{noun[1:]} is {gloss}."


def austen(path: Path) -> Source:
    """Paragraphs of six novels in Rdata.rdb of Debian's r-cran-janeaustenr; one of them is held out."""
    data, place = path.read_bytes(), 0
    train: list[str] = []
    held_out: list[str] = []
    while place < len(data):
        inflater = zlib.decompressobj()
        book = lines_of(inflater.decompress(data[place + 4 :]))
        place = len(data) - len(inflater.unused_data)
        if len(book) > 1000:
            (held_out if any(HELD_OUT_BOOK in line for line in book[:5]) else train).extend(paragraphs(book))
    return Source(train, held_out)


def lines_of(data: bytes) -> list[str]:
    """The ASCII strings of a serialised R vector, in order."""
    lines: list[str] = []
    place = data.find(ASCII_STRING)
    while place >= 0:
        size = struct.unpack_from(">i", data, place + 4)[0]
        end = place + 8 + max(size, 0)
        lines.append(data[place + 8 : end].decode("ascii", "replace"))
        place = data.find(ASCII_STRING, end)
    return lines


def paragraphs(lines: list[str]) -> list[str]:
    """Runs of paragraphs of about PARAGRAPH_CHARACTERS."""
    parts = [re.sub(r"\s+", " ", part).strip() for part in "\n".join(lines).split("\n\n")]
    parts = [part.replace("_", "").replace("--", " - ") for part in parts if len(part) > 40 and not part.isupper()]
    texts: list[str] = [""]
    for part in parts:
        if len(texts[-1]) > PARAGRAPH_CHARACTERS:
            texts.append("")
        texts[-1] = f"{texts[-1]} {part}".strip()
    return texts


def sources(*, wordnet_path: Path, austen_path: Path, made_count: int) -> dict[str, Source]:
    """All three. A made text that training happens to have too is not held out."""
    texts = made(made_count, seed=1)
    known = set(texts)
    return {
        "made": Source(texts, [text for text in made(MADE_HELD_OUT, seed=MADE_HELD_OUT_SEED) if text not in known]),
        "wordnet": wordnet(wordnet_path),
        "austen": austen(austen_path),
    }
