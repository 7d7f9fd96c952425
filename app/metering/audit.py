"""The audit log: who did what, when, and what it changed. Each row signs the one before, so that a change shows.

The chain binds a salted digest of the details, not the details themselves: an erasure can empty them, and the chain
still verifies. It is signed under the pepper, so that who can only write to the database cannot sign anew.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, func, select

from app.clock import Clock
from app.errors import InvalidRequest
from app.metering.changes import one_at_a_time
from app.metering.database import microseconds, moment_of
from app.metering.pepper import Pepper
from app.metering.peppers import choose_current
from app.metering.tables import audit_log

ERASURE = "tenant.erase"
FAULTS_MAX = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a walk along the chain found."""

    rows: int
    head: str
    """The newest row as number:signature; noted elsewhere, it proves later that nothing was cut off."""
    faults: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing was changed, removed or put in."""
        return not self.faults


def append(
    connection: Connection, *, clock: Clock, pepper: Pepper, actor: str, act: str, target: str, tenant_id: str | None,
    details: Mapping[str, Any],
) -> int:  # fmt: skip
    """Write an act down, in the transaction that does it; returns the row's number. `details` holds no secret."""
    one_at_a_time(connection)
    choose_current(connection, pepper)
    last = connection.execute(
        select(audit_log.c.sequence, audit_log.c.chain).order_by(audit_log.c.sequence.desc()).limit(1)
    ).first()
    number, previous = (0, b"") if last is None else (last.sequence, last.chain)
    salt = secrets.token_bytes(16)
    row: dict[str, Any] = {
        "sequence": number + 1, "at_us": microseconds(clock.now()), "actor": actor[:200], "act": act, "target": target,
        "tenant_id": tenant_id, "details": dict(details), "salt": salt, "details_digest": digest_of(details, salt),
        "pepper_id": pepper.id,
    }  # fmt: skip
    connection.execute(audit_log.insert().values(**row, chain=pepper.sign_audit(previous + bound(row))))
    return number + 1


def list_audit(
    connection: Connection, *, after: int = 0, limit: int = 100, tenant_id: str | None = None
) -> list[dict[str, Any]]:
    """Rows, oldest first, after the number `after`."""
    chosen = select(audit_log).where(audit_log.c.sequence > after).order_by(audit_log.c.sequence).limit(limit)
    if tenant_id is not None:
        chosen = chosen.where(audit_log.c.tenant_id == tenant_id)
    return [shown(row) for row in connection.execute(chosen).mappings()]


def newest(connection: Connection) -> int:
    """The number of the newest row."""
    return connection.scalar(select(func.max(audit_log.c.sequence))) or 0


def verify(connection: Connection, *, pepper: Pepper, head: str | None = None) -> Verdict:
    """Walk the whole chain. `head` is one that was noted earlier. Raises InvalidRequest when it is none."""
    number_wanted, chain_wanted = parsed_head(head)
    erased = {
        row.tenant_id: row.sequence
        for row in connection.execute(
            select(audit_log.c.tenant_id, audit_log.c.sequence).where(audit_log.c.act == ERASURE)
        )
    }
    faults: list[str] = []
    previous, number, count = b"", 0, 0
    for row in connection.execute(select(audit_log).order_by(audit_log.c.sequence)).mappings():
        count += 1
        if row["sequence"] != number + 1:
            faults.append(f"rows {number + 1} to {row['sequence'] - 1} are missing")
        number = row["sequence"]
        signed = pepper.sign_audit(previous + bound(row), row["pepper_id"])
        if signed is None:
            faults.append(f"row {number} was signed under another pepper ({row['pepper_id']})")
        elif not hmac.compare_digest(row["chain"], signed):
            faults.append(f"row {number} was changed, or the row before it")
        if row["salt"] is not None:
            if row["details_digest"] != digest_of(row["details"], row["salt"]):
                faults.append(f"row {number}: its details were changed")
        elif erased.get(row["tenant_id"], 0) < number:
            faults.append(f"row {number}: its details were removed, and no erasure says so")
        if number == number_wanted and row["chain"] != chain_wanted:
            faults.append(f"row {number} is not the one that was noted")
        previous = row["chain"]
    if number_wanted > number:
        faults.append(f"rows {number + 1} to {number_wanted} are missing")
    return Verdict(rows=count, head=f"{number}:{previous.hex()}", faults=tuple(faults[:FAULTS_MAX]))


def parsed_head(head: str | None) -> tuple[int, bytes]:
    """A head in its two parts."""
    if head is None:
        return 0, b""
    number, _, chain = head.partition(":")
    try:
        return int(number), bytes.fromhex(chain)
    except ValueError as cause:
        raise InvalidRequest(
            "a head is number:signature, as `tollgate audit verify` prints it", field="head"
        ) from cause


def bound(row: Mapping[str, Any] | RowMapping) -> bytes:
    """What the signature covers, unambiguously."""
    names = ("sequence", "at_us", "actor", "act", "target", "tenant_id", "pepper_id")
    return json.dumps([*(row[name] for name in names), row["details_digest"].hex()]).encode()


def digest_of(details: Mapping[str, Any] | None, salt: bytes) -> bytes:
    """SHA-256 over the salt and the details in a form of their own."""
    return hashlib.sha256(salt + json.dumps(details, sort_keys=True, separators=(",", ":")).encode()).digest()


def shown(row: RowMapping) -> dict[str, Any]:
    """A row as commands and routes show it; details are null after an erasure."""
    return {
        "sequence": row["sequence"],
        "at": moment_of(row["at_us"]).isoformat(timespec="milliseconds"),
        "actor": row["actor"],
        "act": row["act"],
        "target": row["target"],
        "tenant_id": row["tenant_id"],
        "details": row["details"] if row["salt"] is not None else None,
        "chain": row["chain"].hex(),
    }
