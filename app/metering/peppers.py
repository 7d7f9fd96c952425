"""Which pepper is used for what is new, and how much still hangs on each: what the database knows of them."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, func, select, update

from app.metering.database import moment_of, upsert
from app.metering.pepper import Pepper
from app.metering.tables import api_key, audit_log, pepper_use, webhook


def chosen(connection: Connection) -> str | None:
    """The pepper that was activated last; None: the first one."""
    return connection.scalar(select(pepper_use.c.pepper_id).order_by(pepper_use.c.activated_us.desc()).limit(1))


def choose_current(connection: Connection, pepper: Pepper) -> None:
    """Before something new is made: use the pepper that all replicas use. Raises NotFound when it is not here."""
    pepper.choose(chosen(connection))


def activate(connection: Connection, pepper: Pepper, pepper_id: str, *, at_us: int) -> None:
    """From now on digest new keys under this one. Raises NotFound when its file is not here."""
    pepper.choose(pepper_id)
    newest_us = connection.scalar(select(func.max(pepper_use.c.activated_us))) or 0
    at_us = max(at_us, newest_us + 1)
    connection.execute(
        upsert(connection, pepper_use)
        .values(pepper_id=pepper_id, activated_us=at_us)
        .on_conflict_do_update(index_elements=["pepper_id"], set_={"activated_us": at_us})
    )


def redigest(connection: Connection, digests: Mapping[str, bytes], *, pepper_id: str) -> None:
    """Keys by id with their digests under the pepper in use: so an old pepper ends at their next uses."""
    for key_id, digest in sorted(digests.items()):
        connection.execute(
            update(api_key)
            .where(api_key.c.id == key_id, api_key.c.pepper_id != pepper_id)
            .values(digest=digest, pepper_id=pepper_id)
        )


def keys_under(connection: Connection, pepper_id: str) -> int:
    """How many keys would be lost with a pepper: those that are digested under it and not revoked."""
    mine = (api_key.c.pepper_id == pepper_id, api_key.c.revoked_us.is_(None))
    return connection.scalar(select(func.count()).select_from(api_key).where(*mine)) or 0


def pepper_rows(connection: Connection, pepper: Pepper) -> list[dict[str, Any]]:
    """Every pepper of the data folder, and of the database, with what hangs on it."""
    choose_current(connection, pepper)
    used: dict[str, int] = {}
    for row in connection.execute(select(pepper_use)):
        used[row.pepper_id] = row.activated_us
    here = {one.id: one for one in pepper.known}
    counted: dict[str, dict[str, int]] = {}
    for name, table, conditions in (
        ("keys", api_key, (api_key.c.revoked_us.is_(None),)), ("audit_rows", audit_log, ()),
        ("webhooks", webhook, (webhook.c.is_active.is_(True),)),
    ):  # fmt: skip
        grouped = select(table.c.pepper_id, func.count()).where(*conditions).group_by(table.c.pepper_id)
        counted[name] = {row[0]: row[1] for row in connection.execute(grouped)}
    ids = [*here, *sorted({one for rows in counted.values() for one in rows} - here.keys())]
    return [
        {
            "id": one, "file": here[one].path.name if one in here else None, "in_use": one == pepper.id,
            "retired": one in here and here[one].keys is None,
            "activated_at": moment_of(used[one]).isoformat(timespec="seconds") if one in used else None,
            **{name: rows.get(one, 0) for name, rows in counted.items()},
        }
        for one in ids
    ]  # fmt: skip
