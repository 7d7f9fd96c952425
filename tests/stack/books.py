"""The ledger in PostgreSQL against what customers counted themselves."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from deploy.stack import Stack
from tests.stack.clients import INPUT_TOKENS, TEXT, Call, Crowd

SETTLED_S = 60.0
EVENTS_UNDER_WAY = 3
"""Pieces of one stream that may be noted and not yet received: made, queued, being sent."""


@dataclass(frozen=True, slots=True)
class Balance:
    """What a comparison found."""

    entries: int
    exact: int
    over_max: int
    """Tokens charged and not received by a customer who left or was cut off, at most."""
    retried: int
    """Entries of requests whose customer got the answer from another replica; all cost nothing."""


def entries_of(stack: Stack, tenant: str, awaited: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """A tenant's entries by request, once no hold of it is open and those of `awaited` are there, or time is up.

    What was served without the database has no hold, and waits in a replica's spool until the database is back.
    A second entry of a request is a fault.
    """
    give_up_s = time.monotonic() + SETTLED_S
    with psycopg.connect(stack.database_url, row_factory=dict_row, autocommit=True) as connection:
        while True:
            query = "SELECT h.* FROM hold h JOIN tenant t ON t.id = h.tenant_id WHERE t.name = %s"
            held = connection.execute(query, (tenant,)).fetchall()
            query = "SELECT e.* FROM usage_entry e JOIN tenant t ON t.id = e.tenant_id WHERE t.name = %s"
            rows = connection.execute(query, (tenant,)).fetchall()
            missing = set(awaited) - {row["id"] for row in rows}
            is_late = time.monotonic() >= give_up_s
            if not held and (is_late or not missing):
                break
            assert not is_late, f"{len(held)} holds stay open: {held[:3]}"
            time.sleep(0.1)
    by_id = {row["id"]: row for row in rows}
    assert len(by_id) == len(rows), "a request has two entries"
    return by_id


def assert_balanced(stack: Stack, crowd: Crowd, tenant: str, *, killed: Collection[str] = ()) -> Balance:
    """Every call that was answered has its entry, with the tokens that its customer counted.

    An answer is settled before it is sent. A replica among `killed` may die in between, at most one request a
    customer; nginx, which has seen no byte, then asks another one. (An idempotency key would have spared the second.)
    """
    began_s = time.monotonic()
    entries = entries_of(
        stack, tenant, [call.request_id for call in crowd.calls if call.request_id and call.status == 200]
    )
    print(f"the entries were read after {time.monotonic() - began_s:.1f} s")
    known: set[str] = set()
    exact = over = 0
    chunk_max = max((call.chunk_max for call in crowd.calls), default=1)
    for call in crowd.calls:
        if call.request_id is None or call.status != 200:
            continue
        known.add(call.request_id)
        over = max(over, compare(call, entries.get(call.request_id), chunk_max))
        exact += call.is_done
    others = [entry for request_id, entry in entries.items() if request_id not in known]
    charged = [entry for entry in others if entry["output_tokens"]]
    assert len(charged) <= crowd.count and {entry["replica_id"] for entry in charged} <= set(killed), (
        f"somebody was charged for what nobody received: {charged}"
    )
    drifts = stack.command("usage", "verify")
    assert "differ" not in drifts.lower(), drifts
    return Balance(len(entries), exact, over, len(others))


def compare(call: Call, entry: dict[str, Any] | None, chunk_max: int) -> int:
    """One call against its entry; returns the tokens charged beyond those received.

    chunk_max: tokens of the largest piece that anybody got; those that a killed replica took along were no larger.
    """
    assert entry is not None, f"no entry for {call}"
    if call.kind == "batch":
        assert call.is_done is (entry["outcome"] == "finished")
        return 0
    charged = entry["output_tokens"]
    assert charged >= call.tokens, f"received and not charged: {call} {entry}"
    if call.is_done:
        assert charged == call.tokens and entry["input_tokens"] == INPUT_TOKENS, f"{call} {entry}"
    # Whoever leaves has unread pieces in the sockets between, and is charged for them; who stays to the end has none.
    largest = chunk_max if call.is_cut else call.chunk_max
    allowed = TEXT["max_tokens"] if call.is_hung_up else EVENTS_UNDER_WAY * largest
    assert charged - call.tokens <= allowed, f"charged and never sent: {call} {entry}"
    return charged - call.tokens
