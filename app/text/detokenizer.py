"""Token ids into text as they come: never half a character, and together exactly the text of all ids."""

from collections.abc import Callable, Sequence

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer's decode shows for bytes that are no whole character (yet)."""


class Detokenizer:
    """One stream's text. Decodes a short window of ids again at each step, because a token's text depends on its left
    neighbours (spaces, joined bytes), as in vLLM's and TGI's incremental detokenisation.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._window = 0
        """Where the ids begin whose text gives the next ones their context."""
        self._shown = 0
        """Ids whose text has been given out."""

    def push(self, ids: Sequence[int]) -> str:
        """The text that `ids` complete; empty while the last bytes are no whole character."""
        self._ids.extend(ids)
        return self._take(is_last=False)

    def finish(self) -> str:
        """What was held back; bytes that never became a character come as replacement characters."""
        return self._take(is_last=True)

    def _take(self, *, is_last: bool) -> str:
        before = self._decode(self._ids[self._window : self._shown])
        text = self._decode(self._ids[self._window :])
        if len(text) <= len(before) or (text.endswith(UNFINISHED) and not is_last):
            return ""
        self._window, self._shown = self._shown, len(self._ids)
        return text[len(before) :]
