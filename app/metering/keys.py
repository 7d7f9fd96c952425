"""API keys: how they look, how they are stored (as keyed digests), created, listed, rotated, changed and revoked.

`acts.py` is the operator's way to these, which leaves a trace in the audit log.
"""

import dataclasses
import hmac
import ipaddress
import secrets
import string
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, case, func, or_, select, update

from app.clock import Clock
from app.errors import Conflict, InvalidRequest, NotFound
from app.metering.changes import note_change
from app.metering.database import microseconds, moment_of, new_id
from app.metering.limits import NO_LIMITS, LimitRule, rule_of
from app.metering.pepper import Pepper
from app.metering.peppers import choose_current
from app.metering.tables import api_key, budget, key_change, tenant
from app.metering.tenants import Status, checked_name, ensure_tenant

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
SECRET_LENGTH = 43
"""Base62 characters that hold 256 bits."""
CHECKSUM_LENGTH = 6


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
    pepper_id: str
    created_us: int
    expires_us: int | None
    revoked_us: int | None
    networks: tuple[str, ...] | None
    """CIDR; None allows every address."""
    acts: tuple[str, ...] | None
    """What an admin key may do, as patterns (`key.*`); None allows all."""
    replaced_by: str | None
    last_used_us: int | None
    limits: LimitRule
    tenant_status: str
    tenant_tier: str
    tenant_limits: LimitRule


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


def create_key(
    connection: Connection, *, clock: Clock, pepper: Pepper, tenant_name: str, name: str, is_admin: bool = False,
    tasks: tuple[str, ...] | None = None, models: tuple[str, ...] | None = None, expires_us: int | None = None,
    networks: tuple[str, ...] | None = None, acts: tuple[str, ...] | None = None, limits: LimitRule = NO_LIMITS,
) -> NewKey:  # fmt: skip
    """Make a key for a tenant, which is made too when it is new. Raises InvalidRequest."""
    now_us = microseconds(clock.now())
    choose_current(connection, pepper)
    tenant_id = ensure_tenant(connection, clock=clock, name=tenant_name)
    key, key_id = make_key(is_admin=is_admin), new_id("key", clock)
    connection.execute(
        api_key.insert().values(
            id=key_id, tenant_id=tenant_id, digest=pepper.digest(key), pepper_id=pepper.id,
            display=f"{key[:12]}…{key[-4:]}", name=checked_name(name), is_admin=is_admin, tasks=tasks, models=models,
            networks=checked_networks(networks), acts=acts, created_us=now_us, expires_us=expires_us,
            **dataclasses.asdict(limits),
        )
    )  # fmt: skip
    note_change(connection, clock=clock, changed_id=key_id)
    return NewKey(key, get_key(connection, key_id))


def rotate_key(
    connection: Connection, *, clock: Clock, pepper: Pepper, key: str, overlap_us: int, expires_us: int | None = None
) -> NewKey:
    """Make a successor with the same rights; the old key lives on for the overlap (0: it ends at once).

    Its budgets go over to the successor, and bind the old key on (`budgets.BINDING`): rotating buys nothing.
    A key that had a lifetime hands it on, counted anew, unless `expires_us` says otherwise. Raises NotFound, or
    Conflict when the key was rotated before.
    """
    old = resolve_key(connection, key)
    if old.replaced_by is not None:
        raise Conflict(f"{old.display} was rotated before: {old.replaced_by} is its successor")
    now_us = microseconds(clock.now())
    if expires_us is None and old.expires_us is not None:
        expires_us = now_us + old.expires_us - old.created_us
    made = create_key(
        connection, clock=clock, pepper=pepper, tenant_name=old.tenant, name=old.name, is_admin=old.is_admin,
        tasks=old.tasks, models=old.models, expires_us=expires_us, networks=old.networks, acts=old.acts,
        limits=old.limits,
    )  # fmt: skip
    ends_us = now_us + overlap_us if old.expires_us is None else min(old.expires_us, now_us + overlap_us)
    changed: dict[str, Any] = {"replaced_by": made.record.id, "expires_us": ends_us}
    if overlap_us <= 0:
        changed["revoked_us"] = now_us
    connection.execute(update(api_key).where(api_key.c.id == old.id).values(changed))
    inherited = {"key_id": made.record.id, "scope_id": made.record.id}
    connection.execute(update(budget).where(budget.c.key_id == old.id).values(inherited))
    still = (api_key.c.replaced_by == old.id, api_key.c.expires_us > now_us)
    connection.execute(update(api_key).where(*still).values(replaced_by=made.record.id))
    note_change(connection, clock=clock, changed_id=old.id)
    return made


def update_key(connection: Connection, *, clock: Clock, key: str, changes: Mapping[str, Any]) -> KeyRecord:
    """Change columns of an active key: name, tasks, models, networks, acts, expires_us. Raises NotFound."""
    record = resolve_key(connection, key)
    values = dict(changes)
    if "name" in values:
        values["name"] = checked_name(values["name"])
    if "networks" in values:
        values["networks"] = checked_networks(values["networks"])
    if values:
        connection.execute(update(api_key).where(api_key.c.id == record.id).values(values))
        note_change(connection, clock=clock, changed_id=record.id)
    return get_key(connection, record.id)


def revoke_key(connection: Connection, *, clock: Clock, key: str) -> KeyRecord:
    """Revoke by id, display form or name. Raises NotFound when no key, or more than one, is called that."""
    found = resolve_key(connection, key)
    connection.execute(update(api_key).where(api_key.c.id == found.id).values(revoked_us=microseconds(clock.now())))
    note_change(connection, clock=clock, changed_id=found.id)
    return get_key(connection, found.id)


def set_key_limits(connection: Connection, *, clock: Clock, key: str, limits: LimitRule) -> KeyRecord:
    """Replace a key's own limits. Raises NotFound."""
    return update_key(connection, clock=clock, key=key, changes=dataclasses.asdict(limits))


def resolve_key(connection: Connection, key: str) -> KeyRecord:
    """The one active key of this id, display form or name. Raises NotFound when there is none, or more than one.

    Of a rotated key and its successor, which share a name, the successor is meant.
    """
    called = or_(api_key.c.id == key, api_key.c.display == key, api_key.c.name == key)
    rows = connection.execute(_keys().where(called, api_key.c.revoked_us.is_(None)).limit(100)).mappings()
    found = [record_of(row) for row in rows]
    exact = [record for record in found if record.id == key]
    chosen = exact or [record for record in found if record.replaced_by is None] or found
    if len(chosen) != 1:
        raise NotFound(f"{len(chosen)} active keys are called {key!r}; `tollgate keys list` shows their ids")
    return chosen[0]


def list_keys(
    connection: Connection, *, tenant_id: str | None = None, after: str = "", limit: int | None = None,
    is_admin: bool | None = None, is_alive: bool = False, is_newest_first: bool = False,
) -> list[KeyRecord]:  # fmt: skip
    """Keys, oldest first (or newest), after the id `after`; `is_alive` leaves revoked ones out."""
    order = api_key.c.id.desc() if is_newest_first else api_key.c.id
    chosen = _keys().order_by(order).limit(limit)
    if after:
        chosen = chosen.where(api_key.c.id < after if is_newest_first else api_key.c.id > after)
    if tenant_id is not None:
        chosen = chosen.where(api_key.c.tenant_id == tenant_id)
    if is_admin is not None:
        chosen = chosen.where(api_key.c.is_admin.is_(is_admin))
    if is_alive:
        chosen = chosen.where(api_key.c.revoked_us.is_(None))
    return [record_of(row) for row in connection.execute(chosen).mappings()]


def find_key(connection: Connection, *digests: bytes) -> KeyRecord | None:
    """The key with one of these digests, whatever its state: one look-up by a unique index."""
    row = connection.execute(_keys().where(api_key.c.digest.in_(digests))).mappings().first()
    return None if row is None else record_of(row)


def get_key(connection: Connection, key_id: str) -> KeyRecord:
    """The key of this id, whatever its state. Raises NotFound."""
    row = connection.execute(_keys().where(api_key.c.id == key_id)).mappings().first()
    if row is None:
        raise NotFound(f"there is no key {key_id!r}; `tollgate keys list` shows their ids")
    return record_of(row)


def keys_of(connection: Connection, key_ids: Collection[str]) -> list[KeyRecord]:
    """The keys of these ids, as they are now."""
    rows = connection.execute(_keys().where(api_key.c.id.in_(key_ids))).mappings()
    return [record_of(row) for row in rows]


def newest_change(connection: Connection) -> int:
    """The sequence number of the newest change."""
    return connection.scalar(select(func.max(key_change.c.sequence))) or 0


def changes_after(connection: Connection, sequence: int) -> tuple[frozenset[str], int]:
    """The ids of keys (or of tenants, for all of their keys) that changed since, and the newest sequence number."""
    rows = connection.execute(
        select(key_change.c.sequence, key_change.c.key_id).where(key_change.c.sequence > sequence)
    ).all()
    return frozenset(changed for _, changed in rows), max((number for number, _ in rows), default=sequence)


def note_uses(connection: Connection, uses: Mapping[str, int]) -> None:
    """Write down when keys were last used (microseconds by id); never back in time."""
    for key_id, used_us in uses.items():
        last = api_key.c.last_used_us
        newest = case((last.is_(None), used_us), (last < used_us, used_us), else_=last)
        connection.execute(update(api_key).where(api_key.c.id == key_id).values(last_used_us=newest))


def checked_networks(networks: Collection[str] | None) -> list[str] | None:
    """Networks in their usual form; an address is a network of one. Raises InvalidRequest naming the first bad one."""
    if networks is None:
        return None
    found: list[str] = []
    for network in networks:
        try:
            found.append(str(ipaddress.ip_network(network.strip(), strict=False)))
        except ValueError as cause:
            raise InvalidRequest(f"{network!r} is no network; write it as 192.0.2.0/24", field="networks") from cause
    if not found:
        raise InvalidRequest("a key with no allowed network could never be used; leave networks out", field="networks")
    return found


def is_usable(record: KeyRecord, now_us: int) -> bool:
    """Whether a request may run under the key."""
    has_expired = record.expires_us is not None and record.expires_us <= now_us
    return record.revoked_us is None and not has_expired and record.tenant_status == Status.ACTIVE


def key_json(record: KeyRecord) -> dict[str, Any]:
    """A key as commands and routes show it: times in ISO 8601, its own limits; never the key or its digest."""
    shown = {
        name: getattr(record, name)
        for name in ("id", "tenant_id", "tenant", "weight", "name", "display", "is_admin", "replaced_by")
    }
    for name in ("tasks", "models", "networks", "acts"):
        value: tuple[str, ...] | None = getattr(record, name)
        shown[name] = None if value is None else list(value)
    for name in ("created", "expires", "revoked", "last_used"):
        moment: int | None = getattr(record, f"{name}_us")
        shown[f"{name}_at"] = None if moment is None else moment_of(moment).isoformat(timespec="seconds")
    return shown | {"limits": dataclasses.asdict(record.limits)}


def _keys():
    limits = (tenant.c[name].label(f"tenant_{name}") for name in LimitRule.__dataclass_fields__)
    return select(
        api_key, tenant.c.name.label("tenant"), tenant.c.weight, tenant.c.status.label("tenant_status"),
        tenant.c.tier.label("tenant_tier"), *limits,
    ).join(tenant)  # fmt: skip


def record_of(row: RowMapping) -> KeyRecord:
    """A row of api_key joined with its tenant."""
    values: dict[str, Any] = {
        name: row[name] for name in KeyRecord.__dataclass_fields__ if name not in ("limits", "tenant_limits")
    }
    for name in ("tasks", "models", "networks", "acts"):
        values[name] = None if row[name] is None else tuple(row[name])
    return KeyRecord(**values, limits=rule_of(row), tenant_limits=rule_of(row, "tenant_"))
