"""The ledger's entries on their way to billing systems: a queue for each feed, filled by the settlement itself.

A row stays until its entry was handed over, so each goes out at least once, also those that come late out of a spool;
the consumer drops repetitions by the entry's id. A feed that nobody took from for a week is not filled any more.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, String, bindparam, delete, func, insert, literal, select, tuple_, update

from app.errors import NotFound
from app.metering.database import moment_of, upsert
from app.metering.statements import Statement
from app.metering.tables import usage_entry, usage_event, usage_feed

KEPT_US = 7 * 86_400_000_000
Entry = Mapping[str, Any]
"""A row of usage_entry."""
QUEUE_ENTRY = Statement(
    insert(usage_event).from_select(
        ["feed", "entry_id", "leased_until_us"],
        select(usage_feed.c.name, bindparam("of_entry", type_=String), literal(0)).where(
            usage_feed.c.seen_us > bindparam("lately_us")
        ),
    )
)


def register(connection: Connection, feed: str, *, now_us: int) -> None:
    """Somebody takes from this feed."""
    connection.execute(
        upsert(connection, usage_feed)
        .values(name=feed, seen_us=now_us)
        .on_conflict_do_update(index_elements=["name"], set_={"seen_us": now_us})
    )


def queue_entry(connection: Connection, entry_id: str, *, at_us: int) -> None:
    """In the transaction that made the entry: a row for each feed that was seen lately."""
    QUEUE_ENTRY.count(connection, {"of_entry": entry_id, "lately_us": at_us - KEPT_US})


def claim(
    connection: Connection, feed: str, *, lease_id: str, now_us: int, lease_us: int, limit: int
) -> list[Entry]:  # fmt: skip
    """Take some entries, oldest first; nobody else has them while the lease lasts."""
    mine = usage_event.c
    free = (
        select(mine.entry_id)
        .where(mine.feed == feed, mine.leased_until_us <= now_us)
        .order_by(mine.entry_id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    ids = connection.scalars(free).all()
    if not ids:
        return []
    connection.execute(
        update(usage_event)
        .where(mine.feed == feed, mine.entry_id.in_(ids))
        .values(lease_id=lease_id, leased_until_us=now_us + lease_us)
    )
    rows = connection.execute(select(usage_entry).where(usage_entry.c.id.in_(ids)).order_by(usage_entry.c.id))
    return [dict(row) for row in rows.mappings()]


def hand_over(connection: Connection, feed: str, *, lease_id: str) -> None:
    """What was claimed is in the consumer's hands."""
    connection.execute(delete(usage_event).where(usage_event.c.feed == feed, usage_event.c.lease_id == lease_id))


def put_back(connection: Connection, feed: str, *, lease_id: str) -> None:
    """What was claimed did not arrive."""
    mine = (usage_event.c.feed == feed, usage_event.c.lease_id == lease_id)
    connection.execute(update(usage_event).where(*mine).values(leased_until_us=0, lease_id=None))


def waiting(connection: Connection, feed: str) -> int:
    """How many entries wait."""
    return connection.scalar(select(func.count()).select_from(usage_event).where(usage_event.c.feed == feed)) or 0


def list_feeds(connection: Connection) -> list[dict[str, Any]]:
    """Every feed, when it was last taken from, and how many entries wait."""
    return [
        {
            "name": row.name, "seen_at": moment_of(row.seen_us).isoformat(timespec="seconds"),
            "waiting": waiting(connection, row.name),
        }
        for row in connection.execute(select(usage_feed).order_by(usage_feed.c.name)).all()
    ]  # fmt: skip


def stop(connection: Connection, feed: str) -> int:
    """Let go of a feed and of what waits in it; returns how many entries that were. Raises NotFound."""
    if not connection.execute(delete(usage_feed).where(usage_feed.c.name == feed)).rowcount:
        raise NotFound(f"there is no feed {feed!r}; `tollgate usage feeds` lists them")
    return connection.execute(delete(usage_event).where(usage_event.c.feed == feed)).rowcount


def entries_between(
    connection: Connection, *, since_us: int, until_us: int, tenant_id: str | None, after: tuple[int, str], limit: int
) -> list[Entry]:
    """A page of a stretch of time, in order of time and id, after the place `after`."""
    place = tuple_(usage_entry.c.occurred_us, usage_entry.c.id)
    chosen = (
        select(usage_entry)
        .where(usage_entry.c.occurred_us >= since_us, usage_entry.c.occurred_us < until_us)
        .where(place > tuple_(literal(after[0]), literal(after[1])))
        .order_by(usage_entry.c.occurred_us, usage_entry.c.id)
        .limit(limit)
    )
    if tenant_id is not None:
        chosen = chosen.where(usage_entry.c.tenant_id == tenant_id)
    return [dict(row) for row in connection.execute(chosen).mappings()]
