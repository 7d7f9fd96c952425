"""A checkpoint's own tokenizer behind a small, typed face: exact ids, never a silent cut."""

import os
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from jinja2 import TemplateError

from app.errors import InvalidRequest, VerificationFailed

# Marian's tokenizer would normalise punctuation with sacremoses; its published scores do not depend on it.
warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
NO_ADVICE = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
_importing = threading.Lock()


@dataclass(frozen=True, slots=True)
class Encoding:
    """Token ids of one text or pair, with its segment ids."""

    ids: tuple[int, ...]
    type_ids: tuple[int, ...]


class Tokenizer:
    """Loaded from a Hugging Face folder, offline, with no code of the checkpoint's. Safe for one thread at a time."""

    def __init__(self, folder: Path) -> None:
        try:
            self._inner: Any = auto_tokenizer().from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError) as cause:
            raise VerificationFailed(f"{folder} has no tokenizer that can be read: {cause}") from cause
        self._texts: dict[int, str] = {}
        self._core = core_of(self._inner)

    def encode(self, text: str, pair: str | None = None) -> Encoding:
        """All of the text, with the special tokens that the model expects."""
        found: Any = self._inner(text, pair, truncation=False, verbose=False)
        ids = cast("list[int]", found["input_ids"])
        return Encoding(tuple(ids), tuple(cast("list[int]", found.get("token_type_ids") or [0] * len(ids))))

    @property
    def has_offsets(self) -> bool:
        """Whether it can tell where in a text an id came from. Marian's cannot."""
        return cast("bool", self._inner.is_fast)

    def plain_ids(self, text: str) -> tuple[int, ...]:
        """Ids without special tokens."""
        found: Any = self._inner(text, add_special_tokens=False, truncation=False, verbose=False)
        return tuple(found["input_ids"])

    def encode_plain(self, text: str) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
        """Ids without special tokens, and where in `text` each came from: (start, end) in characters.

        Only where `has_offsets`.
        """
        found: Any = self._inner(
            text, add_special_tokens=False, truncation=False, return_offsets_mapping=True, verbose=False
        )
        return tuple(found["input_ids"]), tuple((start, end) for start, end in found["offset_mapping"])

    def encode_bare(self, text: str) -> tuple[int, ...]:
        """Ids of the text, with no special tokens but those that the text itself names."""
        return tuple(self._inner(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"])

    def token(self, token_id: int) -> str:
        """One id's own text, as far as it has one."""
        if token_id not in self._texts:
            self._texts[token_id] = self._inner.decode([token_id])
        return self._texts[token_id]

    def piece(self, token_id: int) -> str:
        """One id as it stands in the vocabulary, with the marks that join pieces to words."""
        return cast("str", self._inner.convert_ids_to_tokens(token_id))

    def joined(self, pieces: Sequence[str]) -> str:
        """Pieces as text."""
        return cast("str", self._inner.convert_tokens_to_string(list(pieces)))

    def id_of(self, piece: str) -> int | None:
        """The id of a piece of the vocabulary."""
        return cast("dict[str, int]", self._inner.get_vocab()).get(piece)

    @property
    def mask_id(self) -> int | None:
        """The token that hides another."""
        return cast("int | None", self._inner.mask_token_id)

    @property
    def unknown_id(self) -> int | None:
        """The token for what no piece spells."""
        return cast("int | None", self._inner.unk_token_id)

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

    def decode(self, ids: Sequence[int], *, keeps_special: bool = False) -> str:
        """Text of ids, without special tokens unless they are wanted."""
        source = self._inner if self._core is None else self._core
        return cast("str", source.decode(list(ids), skip_special_tokens=not keeps_special))

    @property
    def bos_id(self) -> int | None:
        """The token that begins a text."""
        return cast("int | None", self._inner.bos_token_id)

    @property
    def special_tokens(self) -> dict[str, str]:
        """The checkpoint's own special tokens by role: eos_token, bos_token, pad_token, …"""
        found = cast("dict[str, object]", self._inner.special_tokens_map)
        return {name: token for name, token in found.items() if isinstance(token, str)}

    @property
    def chat_template(self) -> str | None:
        """The checkpoint's Jinja template for conversations."""
        found = self._inner.chat_template
        return found if isinstance(found, str) else None

    def render(self, messages: Sequence[Mapping[str, Any]], *, template: str | None, opens_answer: bool = True) -> str:
        """A conversation as one text, by `template` or the checkpoint's own, in Jinja's sandbox.

        `opens_answer` adds what begins the assistant's turn. Raises InvalidRequest with what the template refuses.
        """
        try:
            found: str = self._inner.apply_chat_template(
                [dict(message) for message in messages], chat_template=template, tokenize=False,
                add_generation_prompt=opens_answer,
            )  # fmt: skip
        except (TemplateError, TypeError, KeyError, ValueError) as cause:
            raise InvalidRequest(
                f"the model's chat template refuses these messages: {str(cause)[:200]}", field="messages"
            ) from cause
        return found


def core_of(inner: Any) -> Any:
    """The Rust tokenizer beneath transformers', where the latter's `decode` changes nothing of its text; else None.

    It takes a sixth of the time, twice a token.
    """
    core = getattr(inner, "backend_tokenizer", None) if inner.is_fast else None
    kind = cast("Any", type(inner))
    if core is None or kind._decode.__qualname__ != "TokenizersBackend._decode":
        return None
    is_spaced = inner.clean_up_tokenization_spaces and type(core.model).__name__ != "BPE"
    corrupts = getattr(inner, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", False)
    return None if is_spaced or corrupts else core


def auto_tokenizer() -> Any:
    """transformers' AutoTokenizer, imported when it is first needed.

    A process that has not imported torch by then is one that only tokenises: transformers, which would import torch for
    the models that it offers, is made to believe that there is none.
    """
    with _importing:
        if "torch" in sys.modules:
            from transformers import AutoTokenizer

            return AutoTokenizer
        sys.modules["torch"] = cast("Any", None)  # as the import system is told that a module is not there
        said = os.environ.get(NO_ADVICE)
        os.environ[NO_ADVICE] = "1"  # it would advise to install it
        try:
            from transformers import AutoTokenizer
        finally:
            del sys.modules["torch"]
            os.environ.pop(NO_ADVICE)
            if said is not None:
                os.environ[NO_ADVICE] = said
    return AutoTokenizer
