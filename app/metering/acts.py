"""What an operator does to tenants and keys, each in one transaction with its row in the audit log.

The commands and the admin routes both call these, so that nothing is done that leaves no trace.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy import Connection

from app.clock import Clock
from app.errors import NotAllowed
from app.metering import audit, keys, tenants
from app.metering.keys import KeyRecord, NewKey, Pepper, key_json
from app.metering.limits import NO_LIMITS, LimitRule
from app.metering.tenants import STANDARD, Status, TenantRecord, tenant_json


class Operator:
    """Somebody who acts: by name, and with the acts (patterns such as `key.*`) that they may do; None allows all."""

    def __init__(self, *, actor: str, clock: Clock, pepper: Pepper, acts: tuple[str, ...] | None = None) -> None:
        self.actor = actor
        self.clock = clock
        self._pepper = pepper
        self._acts = acts

    def require(self, act: str) -> None:
        """Raises NotAllowed unless this may be done."""
        if self._acts is not None and not any(fnmatchcase(act, pattern) for pattern in self._acts):
            raise NotAllowed(f"This admin key may not do {act}; it may do {', '.join(self._acts) or 'nothing'}.")

    def create_tenant(
        self, connection: Connection, *, name: str, weight: int = 1, tier: str = STANDARD,
        limits: LimitRule = NO_LIMITS,
    ) -> TenantRecord:  # fmt: skip
        """See tenants.create_tenant."""
        self.require("tenant.create")
        made = tenants.create_tenant(connection, clock=self.clock, name=name, weight=weight, tier=tier, limits=limits)
        self._note_tenant(connection, "tenant.create", None, made)
        return made

    def update_tenant(self, connection: Connection, *, name: str, changes: Mapping[str, Any]) -> TenantRecord:
        """See tenants.update_tenant: name, weight and tier."""
        return self._change_tenant(connection, "tenant.update", name, changes)

    def suspend_tenant(self, connection: Connection, *, name: str) -> TenantRecord:
        """Refuse all of a tenant's keys until it is resumed; running streams stop."""
        return self._change_tenant(connection, "tenant.suspend", name, {"status": Status.SUSPENDED.value})

    def resume_tenant(self, connection: Connection, *, name: str) -> TenantRecord:
        """Undo a suspension."""
        return self._change_tenant(connection, "tenant.resume", name, {"status": Status.ACTIVE.value})

    def set_tenant_limits(self, connection: Connection, *, name: str, limits: LimitRule) -> TenantRecord:
        """Replace a tenant's limits."""
        return self._change_tenant(connection, "tenant.limits", name, limit_columns(limits))

    def erase_tenant(self, connection: Connection, *, name: str) -> TenantRecord:
        """See tenants.erase_tenant. The act's own row says how many keys there were, and no name."""
        self.require(audit.ERASURE)
        erased, key_count = tenants.erase_tenant(connection, clock=self.clock, name=name)
        self._note(connection, audit.ERASURE, erased.id, erased.id, {"keys": key_count})
        return erased

    def create_key(
        self, connection: Connection, *, tenant_name: str, name: str, is_admin: bool = False,
        tasks: tuple[str, ...] | None = None, models: tuple[str, ...] | None = None,
        networks: tuple[str, ...] | None = None, acts: tuple[str, ...] | None = None, expires_us: int | None = None,
        limits: LimitRule = NO_LIMITS,
    ) -> NewKey:  # fmt: skip
        """See keys.create_key. An admin can hand out only acts that it has. A new tenant is written down too."""
        self.require("key.create")
        if is_admin:
            self._require_all(acts)
        before = tenants.find_by_name(connection, tenant_name)
        made = keys.create_key(
            connection, clock=self.clock, pepper=self._pepper, tenant_name=tenant_name, name=name,
            is_admin=is_admin, tasks=tasks, models=models, networks=networks, acts=acts, expires_us=expires_us,
            limits=limits,
        )  # fmt: skip
        if before is None:
            self._note_tenant(connection, "tenant.create", None, tenants.find_tenant(connection, made.record.tenant_id))
        self._note_key(connection, "key.create", None, made.record)
        return made

    def rotate_key(self, connection: Connection, *, key: str, overlap_us: int, expires_us: int | None = None) -> NewKey:
        """See keys.rotate_key."""
        self.require("key.rotate")
        before = self._key_for(connection, key)
        made = keys.rotate_key(
            connection, clock=self.clock, pepper=self._pepper, key=before.id, overlap_us=overlap_us,
            expires_us=expires_us,
        )  # fmt: skip
        self._note_key(connection, "key.rotate", before, keys.get_key(connection, before.id))
        self._note_key(connection, "key.create", None, made.record)
        return made

    def revoke_key(self, connection: Connection, *, key: str) -> KeyRecord:
        """See keys.revoke_key."""
        self.require("key.revoke")
        before = keys.resolve_key(connection, key)
        revoked = keys.revoke_key(connection, clock=self.clock, key=before.id)
        self._note_key(connection, "key.revoke", before, revoked)
        return revoked

    def update_key(self, connection: Connection, *, key: str, changes: Mapping[str, Any]) -> KeyRecord:
        """See keys.update_key."""
        self.require("key.update")
        before = self._key_for(connection, key)
        if before.is_admin and "acts" in changes:
            self._require_all(changes["acts"])
        changed = keys.update_key(connection, clock=self.clock, key=before.id, changes=changes)
        self._note_key(connection, "key.update", before, changed)
        return changed

    def set_key_limits(self, connection: Connection, *, key: str, limits: LimitRule) -> KeyRecord:
        """Replace a key's own limits."""
        self.require("key.limits")
        before = keys.resolve_key(connection, key)
        changed = keys.set_key_limits(connection, clock=self.clock, key=before.id, limits=limits)
        self._note_key(connection, "key.limits", before, changed)
        return changed

    def note(
        self, connection: Connection, *, act: str, target: str, details: Mapping[str, Any], tenant_id: str | None = None
    ) -> None:
        """Write down an act that changes none of these tables. Names and the like hang on the tenant's id."""
        self.require(act)
        self._note(connection, act, target[:40], tenant_id, details)

    def _change_tenant(self, connection: Connection, act: str, name: str, changes: Mapping[str, Any]) -> TenantRecord:
        self.require(act)
        before = tenants.find_tenant(connection, name)
        changed = tenants.update_tenant(connection, clock=self.clock, name=before.id, changes=changes)
        self._note_tenant(connection, act, before, changed)
        return changed

    def _key_for(self, connection: Connection, key: str) -> KeyRecord:
        """The key, if the operator might have made it: else its secret or its rights would be out of their reach."""
        found = keys.resolve_key(connection, key)
        if found.is_admin:
            self._require_all(found.acts)
        return found

    def _require_all(self, acts: tuple[str, ...] | None) -> None:
        if self._acts is None:
            return
        for act in ("*",) if acts is None else acts:
            if act not in self._acts and ("*" in act or not any(fnmatchcase(act, held) for held in self._acts)):
                raise NotAllowed(f"This admin key has no right to {act}, and so cannot hand it out.")

    def _note_tenant(self, connection: Connection, act: str, before: TenantRecord | None, after: TenantRecord) -> None:
        was = None if before is None else tenant_json(before)
        self._note(connection, act, after.id, after.id, changed_between(was, tenant_json(after)))

    def _note_key(self, connection: Connection, act: str, before: KeyRecord | None, after: KeyRecord) -> None:
        was = None if before is None else key_json(before)
        self._note(connection, act, after.id, after.tenant_id, changed_between(was, key_json(after)))

    def _note(
        self, connection: Connection, act: str, target: str, tenant_id: str | None, details: Mapping[str, Any]
    ) -> None:
        audit.append(
            connection, clock=self.clock, pepper=self._pepper, actor=self.actor, act=act, target=target,
            tenant_id=tenant_id, details=details,
        )  # fmt: skip


def limit_columns(limits: LimitRule) -> dict[str, int | None]:
    """The limits as columns of a table."""
    return {name: getattr(limits, name) for name in LimitRule.__dataclass_fields__}


def changed_between(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> dict[str, Any]:
    """What the audit log keeps of a change: all of what is new, and only what differs of what was there."""
    if before is None:
        return {"before": None, "after": dict(after)}
    differs = [name for name in after if before[name] != after[name]]
    return {"before": {name: before[name] for name in differs}, "after": {name: after[name] for name in differs}}
