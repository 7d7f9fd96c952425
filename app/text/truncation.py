"""What to do with a text that is too long: refuse, or cut at one end and say so."""

from collections.abc import Sequence
from enum import StrEnum


class Truncate(StrEnum):
    """The caller's policy. Never a silent cut: the answer says so."""

    ERROR = "error"
    LEFT = "left"
    RIGHT = "right"


def cut(ids: Sequence[int], tokens_max: int, truncate: Truncate) -> tuple[int, ...]:
    """At most `tokens_max` ids, without the first (LEFT) or the last ones (RIGHT). ERROR cuts nothing."""
    if len(ids) <= tokens_max or truncate is Truncate.ERROR:
        return tuple(ids)
    return tuple(ids[:tokens_max] if truncate is Truncate.RIGHT else ids[len(ids) - tokens_max :])
