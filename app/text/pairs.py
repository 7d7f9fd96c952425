"""BERT's way to read one text, or two: [CLS] first [SEP] second [SEP], and what may be cut where it is too long."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.text.tokenizer import Encoding
from app.text.truncation import Truncate, cut


@dataclass(frozen=True, slots=True)
class Fitted:
    """What will be read, and whether something was left out."""

    encoding: Encoding
    is_truncated: bool


def single(encoding: Encoding, tokens_max: int, truncate: Truncate) -> Encoding:
    """The same when it fits, else without its last or first words. The special token at either end stays."""
    if len(encoding.ids) <= tokens_max:
        return encoding
    kept = cut(encoding.ids[1:-1], tokens_max - 2, truncate)
    return Encoding((encoding.ids[0], *kept, encoding.ids[-1]), encoding.type_ids[:tokens_max])


def pair_length(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens the two make together."""
    return len(first) + len(second) + 3


def pair(
    first: Sequence[int], second: Sequence[int], *, cls_id: int, sep_id: int, tokens_max: int, truncate: Truncate,
    keeps_second: bool = False,
) -> Fitted:  # fmt: skip
    """Both; where they are too long together the longer is cut, or, if `keeps_second`, the first (`only_first`)."""
    room = tokens_max - 3
    if keeps_second:
        share = max(0, room - len(second))
        kept, rest = cut(first, share, truncate), second
    else:
        share, other = shares(len(first), len(second), room)
        kept, rest = cut(first, share, truncate), cut(second, other, truncate)
    head = (cls_id, *kept, sep_id)
    encoding = Encoding((*head, *rest, sep_id), (0,) * len(head) + (1,) * (len(rest) + 1))
    return Fitted(encoding, len(kept) + len(rest) < len(first) + len(second))


def shares(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of each fit, as `longest_first` has it: the shorter whole if it is at most half."""
    if first + second <= room:
        return first, second
    short = min(first, second, room // 2)
    return (short, room - short) if first <= second else (room - short, short)
