"""A presented key becomes a Principal, or a refusal that tells nothing to those who guess."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from fnmatch import fnmatchcase

from app.clock import Clock
from app.errors import InvalidKey, MissingKey, NotAllowed
from app.metering.database import Database, microseconds
from app.metering.keys import KeyRecord, Pepper, changes_after, find_key, is_well_formed

POLL_S = 0.5
"""How often a change of keys by another process is looked for: a revocation holds within 2 s."""
CACHE_KEYS_MAX = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who calls, as known when the key was last read."""

    tenant_id: str
    tenant: str
    key_id: str
    key_name: str
    is_admin: bool
    tasks: frozenset[str] | None
    """None allows all."""
    models: tuple[str, ...] | None
    """Patterns as in a shell; None allows all."""
    weight: float

    def require(self, *, task: str, model: str) -> None:
        """Raises NotAllowed unless the key may use this task on this model."""
        if self.tasks is not None and task not in self.tasks:
            raise NotAllowed(f"This API key may not be used for {task}.", field="task")
        if self.models is not None and not any(fnmatchcase(model, pattern) for pattern in self.models):
            raise NotAllowed(f"This API key may not be used with the model {model}.", field="model")

    def require_admin(self) -> None:
        """Raises NotAllowed unless the key is an admin's."""
        if not self.is_admin:
            raise NotAllowed("This needs an admin key; the operator makes one with `tollgate keys create --admin`.")


class Authenticator:
    """Looks keys up by digest and remembers them until they change. A request never writes to what is remembered."""

    def __init__(self, *, database: Database, pepper: Pepper, clock: Clock) -> None:
        self._database = database
        self._pepper = pepper
        self._clock = clock
        self._known: OrderedDict[bytes, KeyRecord] = OrderedDict()
        self._revoked: dict[str, asyncio.Event] = {}
        self._sequence = 0

    async def authenticate(self, presented: str | None) -> Principal:
        """Raises MissingKey, or InvalidKey: the same words for an unknown key as for noise."""
        if not presented:
            raise MissingKey
        if not is_well_formed(presented):
            raise InvalidKey
        digest = self._pepper.digest(presented)
        record = self._known.get(digest)
        if record is None:
            record = await self._database.run(lambda connection: find_key(connection, digest))
            if record is None:
                raise InvalidKey
            self._known[digest] = record
            while len(self._known) > CACHE_KEYS_MAX:
                self._known.popitem(last=False)
        if record.revoked_us is not None:
            raise InvalidKey("This API key was revoked; ask the operator for another.")
        if record.expires_us is not None and record.expires_us <= microseconds(self._clock.now()):
            raise InvalidKey("This API key has expired; ask the operator for another.")
        return principal_of(record)

    def revoked_event(self, key_id: str) -> asyncio.Event:
        """Set when the key is revoked, so that its running streams can stop."""
        return self._revoked.setdefault(key_id, asyncio.Event())

    async def poll(self) -> None:
        """Take note of keys that changed since the last call, by whichever process."""
        changed, self._sequence = await self._database.run(lambda c: changes_after(c, self._sequence))
        for record in changed:
            for digest in [digest for digest, known in self._known.items() if known.id == record.id]:
                del self._known[digest]
            if record.revoked_us is not None and record.id in self._revoked:
                self._revoked.pop(record.id).set()

    async def run(self) -> None:
        """Poll for ever; the task group of main.py owns this."""
        while True:
            await self.poll()
            await asyncio.sleep(POLL_S)


def principal_of(record: KeyRecord) -> Principal:
    """What the rooms above metering may know of a key."""
    return Principal(
        tenant_id=record.tenant_id,
        tenant=record.tenant,
        key_id=record.id,
        key_name=record.name,
        is_admin=record.is_admin,
        tasks=None if record.tasks is None else frozenset(record.tasks),
        models=record.models,
        weight=float(record.weight),
    )
