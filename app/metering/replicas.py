"""The replicas of a database: each moves its beat on; whose beat stands still is dead, and what it held is settled.

A beat is a count, not a time, and each observer measures by its own monotonic clock how long it has stood still: no
clock of any machine can make a living replica look dead.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, delete, or_, select

from app.clock import Clock
from app.metering.database import upsert
from app.metering.leases import return_leases
from app.metering.ledger import recover
from app.metering.tables import replica


@dataclass(frozen=True, slots=True)
class Beat:
    """A replica as it was last seen."""

    replica_id: str
    beat: int
    folder: str
    """Where its journal and spool lie, on its machine or on a disk that is shared."""


def move_on(connection: Connection, *, replica_id: str, folder: str, at_us: int) -> None:
    """Say that a replica lives."""
    statement = upsert(connection, replica).values(
        id=replica_id, beat=1, folder=folder, started_us=at_us, seen_us=at_us
    )  # fmt: skip
    changes = {"beat": replica.c.beat + 1, "folder": folder, "seen_us": at_us}
    connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=changes))


def beats(connection: Connection) -> list[Beat]:
    """Every replica that has not left."""
    rows = connection.execute(select(replica.c.id, replica.c.beat, replica.c.folder).order_by(replica.c.id))
    return [Beat(row.id, row.beat, row.folder) for row in rows]


def settle_of_dead(connection: Connection, *, last: Beat, clock: Clock) -> int:
    """Settle, by its last reports, what a replica held whose beat is still `last`; returns how many requests.

    Its row is locked meanwhile, so that of two sweepers one finds nothing left. Its leases stay held: it may have spent
    of them in entries that wait on its disk.
    """
    its = (replica.c.id == last.replica_id, replica.c.beat == last.beat)
    if connection.execute(select(replica.c.id).where(*its).with_for_update()).first() is None:
        return 0
    return recover(connection, replica_id=last.replica_id, clock=clock)


def forget(connection: Connection, *, replica_id: str, with_workers: bool = False) -> int:
    """A replica left, or will not come back: its leases return to their budgets. Returns how much that was."""
    its = replica.c.id == replica_id
    if with_workers:
        its = or_(its, replica.c.id.startswith(f"{replica_id}.", autoescape=True))
    gone = connection.scalars(delete(replica).where(its).returning(replica.c.id)).all()
    return sum(return_leases(connection, replica_id=one) for one in sorted({*gone, replica_id}))


def recover_lost(connection: Connection, *, replica_id: str, clock: Clock) -> int:
    """Settle what a replica and its workers held, known to be dead, and forget them; returns how many requests."""
    count = recover(connection, replica_id=replica_id, clock=clock, with_workers=True)
    forget(connection, replica_id=replica_id, with_workers=True)
    return count
