"""The scored snippets of the vaderSentiment sdist, read and split so that no document lies on both sides.

No model lives here. What a "document" is differs from file to file:

- product reviews: the id `12_3` is sentence 3 of review 12; a document is a review;
- newspaper editorials: the id `12_3` is sentence 3 of article 12; a document is an article;
- film reviews: the id is a running number and names no document. A line is one critic's blurb, and neighbouring lines
  do not belong together. A document is a line; beyond that, a training line that shares a name (of a film, a
  director, an actor) with a held-out line is left out of training;
- tweets: a document is a line; lines with the same words count as one.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SDIST = "vaderSentiment-3.3.2.tar.gz"
SDIST_SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
INNER_ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
SOURCES = {
    "film": "movieReviewSnippets",
    "product": "amazonReviewSnippets",
    "tweet": "tweets",
    "editorial": "nytEditorialSnippets",
}
NEUTRAL_BAND = 0.6
"""Mean scores lie in [-4, 4]; those strictly inside (-0.6, 0.6) have no label and are never counted as right or wrong."""
HELD_OUT_PERCENT = 12
RARE_NAME_LINES_MAX = 40


@dataclass(frozen=True, slots=True)
class Snippet:
    """One scored text; `document` is unique among all sources."""

    source: str
    document: str
    text: str
    score: float

    @property
    def is_labelled(self) -> bool:
        return abs(self.score) >= NEUTRAL_BAND

    @property
    def label(self) -> int:
        """0 for NEGATIVE, 1 for POSITIVE; only meaningful outside the neutral band."""
        return int(self.score > 0)


@dataclass(frozen=True, slots=True)
class Split:
    train: list[Snippet]
    held_out: list[Snippet]
    left_out_count: int
    """Lines used on neither side, because they share a name or their words with a held-out line."""


def fetch(folder: Path) -> Path:
    """The sdist's path, downloaded into `folder` unless it lies there; raises ValueError when its hash is another."""
    path = folder / SDIST
    if not path.exists():
        command = ["-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "vaderSentiment==3.3.2"]
        subprocess.run([sys.executable, *command, "--dest", str(folder)], check=True)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != SDIST_SHA256:
        raise ValueError(f"{path} has sha256 {digest}, expected {SDIST_SHA256}: delete it and fetch it again.")
    return path


def read(sdist: Path) -> list[Snippet]:
    """All snippets with a score, in file order."""
    with tarfile.open(sdist) as outer:
        inner = outer.extractfile(INNER_ARCHIVE)
        assert inner is not None, "The pinned sdist holds this archive. This is a bug."
        content = inner.read()
    snippets: list[Snippet] = []
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for source, stem in SOURCES.items():
            member = archive.extractfile(f"hutto_ICWSM_2014/{stem}_GroundTruth.txt")
            assert member is not None, "The pinned archive holds this file. This is a bug."
            for line in member.read().decode("utf-8", errors="replace").splitlines():
                snippets.append(_snippet(source, line))
    return snippets


def _snippet(source: str, line: str) -> Snippet:
    identifier, score, text = line.split("\t", 2)
    text = re.sub(r"\s+", " ", html.unescape(text)).strip()
    if source in ("product", "editorial"):
        document = identifier.split("_")[0]
    elif source == "tweet":
        document = normalised(text)
    else:
        document = identifier
    return Snippet(source, f"{source}:{document}", text, float(score))


def normalised(text: str) -> str:
    """Lower-case words only: equal for texts that differ in punctuation, addresses or user names."""
    text = re.sub(r"@\w+|https?://\S+", " ", text.lower())
    return " ".join(re.findall(r"[a-z0-9']+", text))


def is_held_out(document: str) -> bool:
    """A document's side follows from its name alone, so it never depends on order, seed or library version."""
    return int(hashlib.sha256(document.encode()).hexdigest(), 16) % 100 < HELD_OUT_PERCENT


def names(text: str) -> set[str]:
    """Capitalised words that do not open a sentence: titles, people, places."""
    return set(re.findall(r"(?<![.!?:\"'] )(?<!^)\b[A-Z][\w']{2,}", text))


def split(snippets: Iterable[Snippet]) -> Split:
    everything = list(snippets)
    held_out = [snippet for snippet in everything if is_held_out(snippet.document)]
    held_words = {normalised(snippet.text) for snippet in held_out}
    frequency = Counter(name for snippet in everything if snippet.source == "film" for name in names(snippet.text))
    held_names = {name for snippet in held_out if snippet.source == "film" for name in names(snippet.text)}
    telling = {name for name in held_names if frequency[name] <= RARE_NAME_LINES_MAX}
    train: list[Snippet] = []
    left_out_count = 0
    for snippet in everything:
        if is_held_out(snippet.document):
            continue
        is_same_film = snippet.source == "film" and bool(names(snippet.text) & telling)
        if is_same_film or normalised(snippet.text) in held_words:
            left_out_count += 1
        else:
            train.append(snippet)
    return Split(train, held_out, left_out_count)
