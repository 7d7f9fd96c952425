"""Stop strings in streamed text: found across the borders of pieces, not shown unless wanted, little held back."""

from collections.abc import Sequence


class StopStrings:
    """Passes text through until one of `stops` appears; holds back only what may be the beginning of one."""

    def __init__(self, stops: Sequence[str], *, shows_stop: bool = False) -> None:
        self._stops = [stop for stop in stops if stop]
        self._shows_stop = shows_stop
        self._held = ""
        self.found: str | None = None

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to look for."""
        return not self._stops

    def push(self, piece: str) -> str:
        """The part of the text that is safe to show; after a stop was found, nothing more."""
        if self.found is not None:
            return ""
        text = self._held + piece
        hits = [(text.find(stop), stop) for stop in self._stops if stop in text]
        if hits:
            place, self.found = min(hits)
            self._held = ""
            return text[: place + len(self.found)] if self._shows_stop else text[:place]
        keep = max((overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back and turned out not to be a stop."""
        held, self._held = self._held, ""
        return held if self.found is None else ""


def overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` are a beginning of `stop`; less than all of it."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
