"""A long context read through overlapping windows, each with the question before it, as BERT readers are trained."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.errors import ContextLengthExceeded, InvalidRequest

OVERLAP_SHARE = 4
"""Neighbouring windows share a quarter of what one holds."""
CONTEXT_ROOM_MIN = 16


@dataclass(frozen=True, slots=True)
class Window:
    """[CLS] question [SEP] part of the context [SEP]."""

    ids: tuple[int, ...]
    type_ids: tuple[int, ...]
    offset: int
    """Where in `ids` the context's part begins."""
    start: int
    """Which of the context's tokens that is."""
    count: int
    """How many of the context's tokens there are."""


def windows(
    question: Sequence[int], context: Sequence[int], *, cls_id: int, sep_id: int, positions_max: int,
    overlap: int | None = None,
) -> list[Window]:  # fmt: skip
    """As few windows as cover `context`, neighbours sharing `overlap` tokens (a quarter if None).

    Raises ContextLengthExceeded when the question leaves no room, InvalidRequest when an overlap leaves none to go on.
    """
    room = positions_max - len(question) - 3
    if room < min(CONTEXT_ROOM_MIN, len(context)):
        raise ContextLengthExceeded(
            f"the question has {len(question)} tokens, which leaves no room for the context; ask in fewer words",
            field="question",
        )
    shared = room // OVERLAP_SHARE if overlap is None else overlap
    if shared >= room and len(context) > room:
        raise InvalidRequest(
            f"windows hold {room} of the context's tokens and cannot share {shared}", field="doc_stride"
        )
    step = max(1, room - shared)
    head = (cls_id, *question, sep_id)
    found: list[Window] = []
    for start in range(0, len(context), step):
        part = tuple(context[start : start + room])
        ids = (*head, *part, sep_id)
        types = (0,) * len(head) + (1,) * (len(part) + 1)
        found.append(Window(ids, types, len(head), start, len(part)))
        if start + room >= len(context):
            break
    return found
