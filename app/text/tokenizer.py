"""A checkpoint's own tokenizer behind a small, typed face: exact ids, never a silent cut."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from transformers import AutoTokenizer

from app.errors import VerificationFailed


@dataclass(frozen=True, slots=True)
class Encoding:
    """Token ids of one text or pair, with its segment ids."""

    ids: tuple[int, ...]
    type_ids: tuple[int, ...]


class Tokenizer:
    """Loaded from a Hugging Face folder, offline, with no code of the checkpoint's. Safe for one thread at a time."""

    def __init__(self, folder: Path) -> None:
        try:
            load: Any = getattr(AutoTokenizer, "from_pretrained")  # noqa: B009 (untyped there)
            self._inner: Any = load(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError) as cause:
            raise VerificationFailed(f"{folder} has no tokenizer that can be read: {cause}") from cause

    def encode(self, text: str, pair: str | None = None) -> Encoding:
        """All of the text, with the special tokens that the model expects."""
        found: Any = self._inner(text, pair, truncation=False, verbose=False)
        ids = cast("list[int]", found["input_ids"])
        return Encoding(tuple(ids), tuple(cast("list[int]", found.get("token_type_ids") or [0] * len(ids))))

    def decode(self, ids: tuple[int, ...]) -> str:
        """Text of ids, without special tokens."""
        return cast("str", self._inner.decode(ids, skip_special_tokens=True))
