"""A checkpoint's own tokenizer behind a small, typed face: exact ids, never a silent cut."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from transformers import AutoTokenizer

from app.errors import VerificationFailed

# Marian's tokenizer would normalise punctuation with sacremoses; its published scores do not depend on it.
warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")


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

    def encode_plain(self, text: str) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
        """Ids without special tokens, and where in `text` each came from: (start, end) in characters."""
        found: Any = self._inner(
            text, add_special_tokens=False, truncation=False, return_offsets_mapping=True, verbose=False
        )
        return tuple(found["input_ids"]), tuple((start, end) for start, end in found["offset_mapping"])

    def token(self, token_id: int) -> str:
        """One id's own text, as far as it has one."""
        return cast("str", self._inner.decode([token_id]))

    @property
    def eos_id(self) -> int | None:
        """The token that ends a text."""
        return cast("int | None", self._inner.eos_token_id)

    @property
    def cls_id(self) -> int:
        """BERT's first token."""
        return cast("int", self._inner.cls_token_id)

    @property
    def sep_id(self) -> int:
        """BERT's border between two texts."""
        return cast("int", self._inner.sep_token_id)

    @property
    def size(self) -> int:
        """How many ids there are."""
        return len(self._inner)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, without special tokens."""
        return cast("str", self._inner.decode(list(ids), skip_special_tokens=True))
