"""API keys: how they look, how they are stored (as keyed digests), created, listed and revoked."""

import hmac
import os
import secrets
import string
import zlib
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, RowMapping, select, update

from app.clock import Clock
from app.errors import NotFound
from app.metering.database import microseconds, new_id
from app.metering.tables import api_key, key_change, tenant

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
SECRET_LENGTH = 43
"""Base62 characters that hold 256 bits."""
CHECKSUM_LENGTH = 6
PEPPER_NAME = "pepper"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """What is known of a key; never the key itself."""

    id: str
    tenant_id: str
    tenant: str
    weight: int
    name: str
    display: str
    is_admin: bool
    tasks: tuple[str, ...] | None
    models: tuple[str, ...] | None
    created_us: int
    expires_us: int | None
    revoked_us: int | None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key at its birth: the only moment at which it can be read."""

    key: str
    record: KeyRecord


def base62(number: int, length: int) -> str:
    """`number` in base 62, padded on the left to `length` characters."""
    digits: list[str] = []
    for _ in range(length):
        number, rest = divmod(number, 62)
        digits.append(ALPHABET[rest])
    return "".join(reversed(digits))


def make_key(*, is_admin: bool) -> str:
    """A fresh key: sk-tg- or sk-tg-adm-, 43 base62 characters, and a 6-character CRC-32 of all before it."""
    body = ("sk-tg-adm-" if is_admin else "sk-tg-") + base62(secrets.randbits(256), SECRET_LENGTH)
    return body + base62(zlib.crc32(body.encode()), CHECKSUM_LENGTH)


def is_well_formed(key: str) -> bool:
    """Whether the checksum fits: a typo or noise is told without a look-up."""
    body, checksum = key[:-CHECKSUM_LENGTH], key[-CHECKSUM_LENGTH:]
    secret = body.removeprefix("sk-tg-").removeprefix("adm-")
    return (
        key.isascii()
        and body.startswith("sk-tg-")
        and len(secret) == SECRET_LENGTH
        and hmac.compare_digest(base62(zlib.crc32(body.encode()), CHECKSUM_LENGTH), checksum)
    )


class Pepper:
    """The secret under which keys are digested; made on first use, readable by its owner alone."""

    def __init__(self, home: Path) -> None:
        path = home / PEPPER_NAME
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            pass
        else:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(32))
        self._secret = path.read_bytes()
        if len(self._secret) < 32:
            raise NotFound(f"{path} is shorter than 32 bytes; restore it from a backup, or every key is lost")
        self.id = hmac.digest(self._secret, b"pepper-id", "sha256").hex()[:8]

    def digest(self, key: str) -> bytes:
        """HMAC-SHA256 of the key: 32 bytes."""
        return hmac.digest(self._secret, key.encode(), "sha256")


def create_key(
    connection: Connection, *, clock: Clock, pepper: Pepper, tenant_name: str, name: str, is_admin: bool = False,
    tasks: tuple[str, ...] | None = None, models: tuple[str, ...] | None = None, expires_us: int | None = None,
) -> NewKey:  # fmt: skip
    """Make a key for a tenant, which is made too when it is new."""
    now_us = microseconds(clock.now())
    tenant_id = connection.scalar(select(tenant.c.id).where(tenant.c.name == tenant_name))
    if tenant_id is None:
        tenant_id = new_id("tenant", clock)
        connection.execute(tenant.insert().values(id=tenant_id, name=tenant_name, weight=1, created_us=now_us))
    key, key_id = make_key(is_admin=is_admin), new_id("key", clock)
    connection.execute(
        api_key.insert().values(
            id=key_id, tenant_id=tenant_id, digest=pepper.digest(key), pepper_id=pepper.id,
            display=f"{key[:12]}…{key[-4:]}", name=name, is_admin=is_admin, tasks=tasks, models=models,
            created_us=now_us, expires_us=expires_us,
        )
    )  # fmt: skip
    connection.execute(key_change.insert().values(key_id=key_id, at_us=now_us))
    return NewKey(key, next(record for record in list_keys(connection) if record.id == key_id))


def list_keys(connection: Connection) -> list[KeyRecord]:
    """Every key, oldest first."""
    return [record_of(row) for row in connection.execute(_keys().order_by(api_key.c.id)).mappings()]


def find_key(connection: Connection, digest: bytes) -> KeyRecord | None:
    """The key with this digest, whatever its state."""
    row = connection.execute(_keys().where(api_key.c.digest == digest)).mappings().first()
    return None if row is None else record_of(row)


def revoke_key(connection: Connection, *, clock: Clock, key: str) -> KeyRecord:
    """Revoke by id, display form or name. Raises NotFound when no key, or more than one, is called that."""
    found = [r for r in list_keys(connection) if key in (r.id, r.display, r.name) and r.revoked_us is None]
    if len(found) != 1:
        raise NotFound(f"{len(found)} active keys are called {key!r}; `tollgate keys list` shows their ids")
    now_us = microseconds(clock.now())
    connection.execute(update(api_key).where(api_key.c.id == found[0].id).values(revoked_us=now_us))
    connection.execute(key_change.insert().values(key_id=found[0].id, at_us=now_us))
    return next(record for record in list_keys(connection) if record.id == found[0].id)


def changes_after(connection: Connection, sequence: int) -> tuple[list[KeyRecord], int]:
    """The keys that changed since `sequence`, as they are now, and the newest sequence number."""
    changes = connection.execute(
        select(key_change.c.sequence, key_change.c.key_id).where(key_change.c.sequence > sequence)
    ).all()
    if not changes:
        return [], sequence
    rows = connection.execute(_keys().where(api_key.c.id.in_({key_id for _, key_id in changes}))).mappings()
    return [record_of(row) for row in rows], max(number for number, _ in changes)


def _keys():
    return select(api_key, tenant.c.name.label("tenant"), tenant.c.weight).join(tenant)


def record_of(row: RowMapping) -> KeyRecord:
    """A row of api_key joined with its tenant."""
    return KeyRecord(
        id=row["id"], tenant_id=row["tenant_id"], tenant=row["tenant"], weight=row["weight"], name=row["name"],
        display=row["display"], is_admin=row["is_admin"],
        tasks=None if row["tasks"] is None else tuple(row["tasks"]),
        models=None if row["models"] is None else tuple(row["models"]),
        created_us=row["created_us"], expires_us=row["expires_us"], revoked_us=row["revoked_us"],
    )  # fmt: skip
