"""How rate limits stand, as headers: OpenAI's x-ratelimit-* and the IETF's ratelimit and ratelimit-policy."""

import math
from collections.abc import Sequence

from app.admission.buckets import MINUTE_S, What
from app.admission.limits import Standing


def go_duration(seconds: float) -> str:
    """A duration as Go writes it, and OpenAI with it: 12ms, 1.5s, 6m0s, 1h0m0s."""
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:g}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def limit_headers(standings: Sequence[Standing]) -> dict[str, str]:
    """Of each kind the limit that will be reached first; the tightest of all comes first in the IETF's lists."""
    tightest: dict[What, Standing] = {}
    for standing in standings:
        known = tightest.get(standing.limit.what)
        if known is None or standing.remaining < known.remaining:
            tightest[standing.limit.what] = standing
    headers: dict[str, str] = {}
    for what in (What.REQUESTS, What.TOKENS):
        if (found := tightest.get(what)) is not None:
            headers[f"x-ratelimit-limit-{what.value}"] = str(found.limit.amount)
            headers[f"x-ratelimit-remaining-{what.value}"] = str(found.remaining)
            headers[f"x-ratelimit-reset-{what.value}"] = go_duration(found.reset_s)
    rates = [one for what, one in tightest.items() if what is not What.CONCURRENT]
    rates.sort(key=lambda one: one.remaining / one.limit.amount)
    if rates:
        headers["ratelimit"] = ", ".join(
            f'"{one.limit.what.value}";r={one.remaining};t={math.ceil(one.reset_s)}' for one in rates
        )
        headers["ratelimit-policy"] = ", ".join(
            f'"{one.limit.what.value}";q={one.limit.amount};w={int(MINUTE_S)}' for one in rates
        )
    return headers
