"""A presented key becomes a Principal, or a refusal that tells nothing to those who guess."""

import asyncio
import ipaddress
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import islice

from app.clock import Clock
from app.errors import InvalidKey, MissingKey, NotAllowed, NotFound, StorageUnavailable, TenantSuspended
from app.metering.database import Database, microseconds
from app.metering.keys import (
    KeyRecord,
    Pepper,
    changes_after,
    find_key,
    is_usable,
    is_well_formed,
    keys_of,
    newest_change,
    note_uses,
)
from app.metering.limits import NO_LIMITS, LimitRule
from app.metering.peppers import chosen, redigest
from app.metering.tenants import STANDARD, Status

log = logging.getLogger(__name__)
POLL_S = 0.5
"""How often a change of keys by another process is looked for: a revocation holds within 2 s."""
STALE_S = 300.0
"""How long keys are trusted while the database cannot be asked whether they changed."""
CACHE_KEYS_MAX = 50_000
UNKNOWN_S = 10.0
"""How long a key that does not exist is remembered as such."""
UNKNOWN_MAX = 10_000
USES_EVERY_S = 30.0
USES_AT_ONCE = 500
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


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
    acts: tuple[str, ...] | None = None
    """What an admin key may do; None allows all."""
    tier: str = STANDARD
    limits: LimitRule = NO_LIMITS
    tenant_limits: LimitRule = NO_LIMITS

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


@dataclass(frozen=True, slots=True)
class Known:
    """A key as it is remembered, with what every request would have to work out again."""

    record: KeyRecord
    principal: Principal
    networks: tuple[Network, ...] | None


@dataclass(slots=True)
class Watch:
    """Requests that run under one key."""

    tenant_id: str
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    count: int = 0


class Authenticator:
    """Looks keys up by digest and remembers them until they change. A request never writes to what is remembered."""

    def __init__(self, *, database: Database, pepper: Pepper, clock: Clock) -> None:
        self._database = database
        self._pepper = pepper
        self._clock = clock
        self._known: OrderedDict[bytes, Known] = OrderedDict()
        self._digests: dict[str, bytes] = {}
        self._unknown: OrderedDict[bytes, float] = OrderedDict()
        self._watches: dict[str, Watch] = {}
        self._uses: dict[str, int] = {}
        self._redigests: dict[str, bytes] = {}
        """Digests, under the pepper in use, of keys that are stored under an older one."""
        self.on_changes: Callable[[frozenset[str]], Awaitable[None]] | None = None
        """Told the ids of what changed, whatever it is."""
        self._sequence: int | None = None
        self._polled_s = clock.monotonic_s()
        self._uses_noted_s = clock.monotonic_s()

    async def authenticate(self, presented: str | None, peer: str | None = None) -> Principal:
        """The principal of a key that is good, presented from the address `peer`.

        Raises MissingKey, InvalidKey (the same words for an unknown key as for noise), TenantSuspended, or NotAllowed
        from a network that the key does not name.
        """
        if not presented:
            raise MissingKey
        if not is_well_formed(presented):
            raise InvalidKey
        known = await self._look_up(self._pepper.digests(presented))
        now_us = microseconds(self._clock.now())
        refuse_unusable(known.record, now_us)
        if known.networks is not None and not is_within(peer, known.networks):
            raise NotAllowed("This API key may not be used from this network address.")
        self._uses[known.record.id] = now_us
        if known.record.pepper_id != self._pepper.id:
            self._redigests[known.record.id] = self._pepper.digest(presented)
        return known.principal

    @asynccontextmanager
    async def watch(self, principal: Principal) -> AsyncGenerator[asyncio.Event]:
        """An event that is set when the key ends or its tenant is suspended, for a request to stop by.

        Raises what `authenticate` would when that has happened since the key was presented.
        """
        watch = self._watches.setdefault(principal.key_id, Watch(principal.tenant_id))
        watch.count += 1
        try:
            if principal.key_id not in self._digests:
                [record] = await self._database.run(lambda connection: keys_of(connection, [principal.key_id]))
                refuse_unusable(record, microseconds(self._clock.now()))
            yield watch.stop
        finally:
            watch.count -= 1
            if not watch.count and self._watches.get(principal.key_id) is watch:
                del self._watches[principal.key_id]

    async def poll(self) -> None:
        """Take note of keys and tenants that changed since the last call, by whichever process."""
        asked_s = self._clock.monotonic_s()
        await self._choose_pepper()
        if self._sequence is None:
            self._sequence = await self._database.run(newest_change)
            self._forget(frozenset(record.id for record in (known.record for known in self._known.values())))
            changed = frozenset(self._watches)
        else:
            since = self._sequence
            changed, self._sequence = await self._database.run(lambda connection: changes_after(connection, since))
        self._polled_s = asked_s
        if not changed:
            return
        if self.on_changes is not None:
            await self.on_changes(changed)
        self._forget(changed)
        watched = [key_id for key_id, watch in self._watches.items() if changed & {key_id, watch.tenant_id}]
        if not watched:
            return
        now_us = microseconds(self._clock.now())
        for record in await self._database.run(lambda connection: keys_of(connection, watched)):
            if not is_usable(record, now_us) and record.id in self._watches:
                self._watches.pop(record.id).stop.set()

    async def _choose_pepper(self) -> None:
        """Take note of peppers that were added to the data folder, and of which one is used."""
        self._pepper.refresh()
        before, used = self._pepper.id, await self._database.run(chosen)
        try:
            self._pepper.choose(used)
        except NotFound as error:
            log.error("%s", error.message)
        if self._pepper.id != before:
            self._redigests.clear()

    async def note_uses(self) -> None:
        """Write down when keys were last used: off the road of requests, in small transactions."""
        uses, self._uses = self._uses, {}
        self._uses_noted_s = self._clock.monotonic_s()
        rest = iter(uses.items())
        while part := dict(islice(rest, USES_AT_ONCE)):
            await self._database.run(lambda connection, part=part: note_uses(connection, part))
        digests, self._redigests = self._redigests, {}
        if digests:
            pepper_id = self._pepper.id
            await self._database.run(lambda connection: redigest(connection, digests, pepper_id=pepper_id))
            self._forget(frozenset(digests))

    async def run(self) -> None:
        """Poll for ever; the task group of main.py owns this."""
        while True:
            await self.poll()
            if self._clock.monotonic_s() - self._uses_noted_s >= USES_EVERY_S:
                await self.note_uses()
            await asyncio.sleep(POLL_S)

    async def _look_up(self, digests: tuple[bytes, ...]) -> Known:
        """By all of a key's digests; remembered by the first."""
        digest = digests[0]
        now_s = self._clock.monotonic_s()
        known = self._known.get(digest)
        if known is not None:
            if now_s - self._polled_s > STALE_S:
                raise StorageUnavailable
            return known
        if self._unknown.get(digest, 0.0) > now_s:
            raise InvalidKey
        sequence = self._sequence
        record = await self._database.run(lambda connection: find_key(connection, *digests))
        if record is None:
            self._unknown[digest] = now_s + UNKNOWN_S
            while len(self._unknown) > UNKNOWN_MAX:
                self._unknown.popitem(last=False)
            raise InvalidKey
        known = known_of(record)
        if (
            sequence == self._sequence
        ):  # else a change may lie between what was read and now: good for this request only
            self._known[digest] = known
            self._digests[record.id] = digest
            while len(self._known) > CACHE_KEYS_MAX:
                _, oldest = self._known.popitem(last=False)
                self._digests.pop(oldest.record.id, None)
        return known

    def _forget(self, changed: frozenset[str]) -> None:
        self._unknown.clear()
        for digest, known in list(self._known.items()):
            if known.record.id in changed or known.record.tenant_id in changed:
                del self._known[digest]
                self._digests.pop(known.record.id, None)


def refuse_unusable(record: KeyRecord, now_us: int) -> None:
    """Raises InvalidKey or TenantSuspended."""
    if record.revoked_us is not None:
        raise InvalidKey("This API key was revoked; ask the operator for another.")
    if record.expires_us is not None and record.expires_us <= now_us:
        raise InvalidKey("This API key has expired; ask the operator for another.")
    if record.tenant_status != Status.ACTIVE:
        raise TenantSuspended


def is_within(peer: str | None, networks: tuple[Network, ...]) -> bool:
    """Whether an address lies in one of the networks; IPv4 in IPv6's clothes counts as IPv4."""
    try:
        address = ipaddress.ip_address(peer or "")
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address.version == network.version and address in network for network in networks)


def known_of(record: KeyRecord) -> Known:
    """A record, made ready for requests."""
    networks = None if record.networks is None else tuple(ipaddress.ip_network(one) for one in record.networks)
    return Known(record, principal_of(record), networks)


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
        acts=record.acts,
        tier=record.tenant_tier,
        limits=record.limits,
        tenant_limits=record.tenant_limits,
    )
