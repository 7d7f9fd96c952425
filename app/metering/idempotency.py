"""Claims of Idempotency-Keys: whichever request comes first under a key runs, on one replica of all; the rest do not.

Neither the key nor the body is kept: a digest of the key, and a digest of the body made with the key.
"""

import hashlib
import hmac
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, RowMapping, delete, select, update

from app.metering.database import upsert
from app.metering.tables import hold, idempotency, usage_entry

Once = tuple[str, str]
"""What is kept of a key, and of the request under it."""
TTL_US = 24 * 3_600_000_000
ANSWERED_US = 60_000_000
"""How long after its settlement an answer is surely out, or its replica is dead."""
RUNNING, DONE = "running", "done"
CRASHED = "crashed"
"""As in ledger.Outcome, which stands above this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Who has a key."""

    request_id: str
    fingerprint: str
    is_mine: bool
    is_done: bool


def hash_of(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def fingerprint_of(key: str, *, path: str, body: bytes) -> str:
    """What is kept of a request: enough to tell another one, too little to guess this one."""
    return hmac.digest(key.encode(), path.encode() + b"\n" + body, "sha256").hex()


def claim(
    connection: Connection, *, tenant_id: str, key: str, fingerprint: str, request_id: str, replica_id: str, at_us: int
) -> Claim:
    """Take the key, or learn who has it. One whose request left no charge and runs no more is taken anew."""
    found = _take(
        connection, tenant_id, hash_of(key), fingerprint, request_id=request_id, replica_id=replica_id, at_us=at_us,
        state=RUNNING,
    )  # fmt: skip
    return Claim(
        request_id=found["request_id"], fingerprint=found["fingerprint"], is_mine=found["request_id"] == request_id,
        is_done=found["state"] == DONE or _has_ended(connection, found["request_id"], at_us),
    )  # fmt: skip


def take_late(
    connection: Connection, once: Once, *, tenant_id: str, request_id: str, replica_id: str, at_us: int
) -> bool:
    """Bring in what was claimed while the database was away, with the entry of the request that ran.

    False when another request like it has the key: one of them is charged, and it is not this one.
    """
    key_hash, fingerprint = once
    found = _take(
        connection, tenant_id, key_hash, fingerprint, request_id=request_id, replica_id=replica_id, at_us=at_us,
        state=DONE,
    )  # fmt: skip
    return found["request_id"] == request_id or found["fingerprint"] != fingerprint


def finish(connection: Connection, *, request_id: str, tenant_id: str, key: str) -> None:
    """The claim's request was answered."""
    connection.execute(update(idempotency).where(*_claim(request_id, tenant_id, key)).values(state=DONE))


def let_go(connection: Connection, *, request_id: str, tenant_id: str, key: str) -> None:
    """The claim's request was refused: the same key may try again."""
    connection.execute(delete(idempotency).where(*_claim(request_id, tenant_id, key)))


def _take(
    connection: Connection, tenant_id: str, key_hash: str, fingerprint: str, *, request_id: str, replica_id: str,
    at_us: int, state: str,
) -> RowMapping:  # fmt: skip
    """Take the key if it is free; returns who has it then."""
    connection.execute(delete(idempotency).where(idempotency.c.expires_us <= at_us))
    mine = (idempotency.c.tenant_id == tenant_id, idempotency.c.key_hash == key_hash)
    row = connection.execute(select(idempotency).where(*mine)).mappings().first()
    is_others = row is not None and row["request_id"] != request_id
    if row is not None and is_others and row["fingerprint"] == fingerprint and _is_void(connection, row["request_id"]):
        connection.execute(delete(idempotency).where(*mine, idempotency.c.request_id == row["request_id"]))
    connection.execute(
        upsert(connection, idempotency)
        .values(
            tenant_id=tenant_id, key_hash=key_hash, fingerprint=fingerprint, request_id=request_id, state=state,
            replica_id=replica_id, created_us=at_us, expires_us=at_us + TTL_US,
        )
        .on_conflict_do_nothing()
    )  # fmt: skip
    return connection.execute(select(idempotency).where(*mine)).mappings().one()


def _claim(request_id: str, tenant_id: str, key: str) -> tuple[ColumnElement[bool], ...]:
    mine = idempotency.c
    return mine.tenant_id == tenant_id, mine.key_hash == hash_of(key), mine.request_id == request_id


def _has_ended(connection: Connection, request_id: str, at_us: int) -> bool:
    """Whether nobody will finish the claim: its replica died with it, or before it could."""
    entry = usage_entry.c
    ended = (entry.outcome == CRASHED) | (entry.occurred_us <= at_us - ANSWERED_US)
    return connection.scalar(select(entry.id).where(entry.id == request_id, ended)) is not None


def _is_void(connection: Connection, request_id: str) -> bool:
    """Whether a request ended without a charge for anything: it was settled with no use at all."""
    if connection.scalar(select(hold.c.request_id).where(hold.c.request_id == request_id)) is not None:
        return False
    row = connection.execute(select(usage_entry).where(usage_entry.c.id == request_id)).mappings().first()
    return row is not None and not (row["input_tokens"] or row["output_tokens"] or row["characters"])
