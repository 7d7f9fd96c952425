"""Which language a text is in, by its bytes (py3langid, 97 languages; a naive Bayes over n-grams), and their names."""

import importlib
import threading
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import Any

TEXT_LENGTH_MAX = 2000
"""So many characters tell enough."""
NAMES = {
    "ar": "Arabic", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan", "cs": "Czech", "da": "Danish", "de": "German",
    "el": "Greek", "en": "English", "es": "Spanish", "et": "Estonian", "eu": "Basque", "fa": "Persian", "fi": "Finnish",
    "fr": "French", "ga": "Irish", "gl": "Galician", "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian",
    "id": "Indonesian", "is": "Icelandic", "it": "Italian", "ja": "Japanese", "ko": "Korean", "lt": "Lithuanian",
    "lv": "Latvian", "mk": "Macedonian", "ms": "Malay", "mt": "Maltese", "nb": "Norwegian", "nl": "Dutch",
    "no": "Norwegian", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sk": "Slovak",
    "sl": "Slovenian", "sq": "Albanian", "sr": "Serbian", "sv": "Swedish", "sw": "Swahili", "th": "Thai",
    "tl": "Tagalog", "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Guess:
    """A language (ISO 639-1) and how likely it is among those that were asked for, 0 to 1."""

    language: str
    confidence: float


def name_of(language: str) -> str:
    """Its English name, or the code itself."""
    return NAMES.get(language, language)


def detect(text: str, among: Collection[str] | None = None) -> list[Guess]:
    """Languages by likelihood, best first; all that are known, or `among` these. Blocks; a second at its first call.

    A text without letters tells nothing: every guess is then equally likely.
    """
    ranked: dict[str, float] = dict(detector().rank(text[:TEXT_LENGTH_MAX]))
    wanted = ranked.keys() if among is None else among
    found = {language: ranked.get(language, 0.0) for language in wanted}
    total = sum(found.values())
    if not total or not any(letter.isalpha() for letter in text):
        return [Guess(language, 1 / len(found)) for language in found]
    guesses = [Guess(language, share / total) for language, share in found.items()]
    return sorted(guesses, key=lambda guess: -guess.confidence)


def detector() -> Any:
    """One for the process; it holds nothing of the texts."""
    with _lock:
        return made_detector()


@cache
def made_detector() -> Any:
    """Reads the model that the package brings."""
    found: Any = importlib.import_module("py3langid.langid")  # here, because only those pay for it who ask
    return found.LanguageIdentifier.from_model_file(found.MODEL_FILE, norm_probs=True)
