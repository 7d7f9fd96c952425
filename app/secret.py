"""Settings that are nobody's business: printed, logged or dumped they show where they point, never what opens it."""

from typing import Annotated, Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import PlainSerializer, Secret, SerializationInfo

HIDDEN = "**********"
REVEALED = {"reveal": True}
"""As `context` of a model's dump: another process of this server needs the secrets themselves."""


class HiddenText(Secret[str]):
    """A secret that shows nothing of itself."""

    def _display(self) -> str:
        return HIDDEN


class HiddenUrl(Secret[str]):
    """A URL that shows host and path, and neither user, password nor query."""

    def _display(self) -> str:
        return without_password(self.get_secret_value())


def without_password(url: str) -> str:
    """A URL to show: what stands before the host and after the path is hidden."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return HIDDEN
    if not parts.scheme:
        return HIDDEN
    *secret, place = parts.netloc.rpartition("@")
    return urlunsplit((
        parts.scheme, f"{HIDDEN}@{place}" if secret[0] else place, parts.path, HIDDEN if parts.query else "",
        HIDDEN if parts.fragment else "",
    ))  # fmt: skip


def _dumped(value: Any, info: SerializationInfo) -> Any:
    if info.mode == "python" or not isinstance(value, HiddenText | HiddenUrl):
        return value
    is_revealed = bool(info.context) and bool(info.context.get("reveal"))
    return value.get_secret_value() if is_revealed else str(value)


SecretUrl = Annotated[HiddenUrl, PlainSerializer(_dumped)]
SecretText = Annotated[HiddenText, PlainSerializer(_dumped)]
