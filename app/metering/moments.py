"""Lengths of time and moments as operators write them."""

import re
from datetime import UTC, datetime

from app.clock import Clock
from app.errors import InvalidRequest
from app.metering.database import microseconds

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
SECOND_US = 1_000_000
YEARS_MAX_S = 100 * 366 * 86_400


def span_us(text: str) -> int:
    """A length such as 30s, 12h or 90d, in microseconds. Raises InvalidRequest."""
    found = re.fullmatch(r"(\d{1,10})([smhd])", text.strip())
    seconds = int(found[1]) * UNITS_S[found[2]] if found else YEARS_MAX_S
    if seconds >= YEARS_MAX_S:
        raise InvalidRequest(f"{text!r} is no length of time; write it as 30s, 15m, 12h or 90d")
    return seconds * SECOND_US


def moment_us(text: str, *, clock: Clock) -> int:
    """A moment to come: a length from now, or a date in ISO 8601 (UTC if it names no zone). Raises InvalidRequest."""
    now_us = microseconds(clock.now())
    if re.fullmatch(r"\d+[smhd]", text.strip()):
        return now_us + span_us(text)
    found_us = instant_us(text)
    if found_us <= now_us:
        raise InvalidRequest(f"{text!r} has passed already")
    return found_us


def instant_us(text: str) -> int:
    """Any moment: a date in ISO 8601 (UTC if it names no zone). Raises InvalidRequest."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as cause:
        raise InvalidRequest(f"{text!r} is no moment; write it as 90d or 2027-01-31") from cause
    return microseconds(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
