"""Keys at the door: refused alike when unknown, refused within a poll when another process revokes them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from app.admission.authenticate import Authenticator
from app.clock import SystemClock
from app.errors import InvalidKey, MissingKey, NotAllowed, StorageUnavailable, TenantSuspended
from app.metering.database import Database, Work
from app.metering.keys import NewKey, Pepper, create_key, make_key, revoke_key
from app.metering.tenants import Status, set_status
from tests.fixtures.clock import TurnedClock

T = TypeVar("T")
CLOCK = SystemClock()


@pytest.fixture
def door(database: Database, tmp_path: Path) -> Authenticator:
    return Authenticator(database=database, pepper=Pepper(tmp_path), clock=CLOCK)


async def test_a_good_key_is_known_and_bad_ones_are_refused_alike(door: Authenticator, key: NewKey) -> None:
    principal = await door.authenticate(key.key)
    assert (principal.tenant, principal.key_name, principal.is_admin) == ("acme", "first", False)
    for missing in (None, ""):
        with pytest.raises(MissingKey):
            await door.authenticate(missing)
    messages: set[str] = set()
    for bad in (make_key(is_admin=False), key.key[:-1] + "?", "Bearer", "ключ" * 20):
        with pytest.raises(InvalidKey) as refused:
            await door.authenticate(bad)
        messages.add(refused.value.message)
    assert len(messages) == 1
    with pytest.raises(NotAllowed, match="admin"):
        principal.require_admin()


async def test_a_revocation_by_another_process_holds_after_a_poll(
    door: Authenticator, key: NewKey, tmp_path: Path
) -> None:
    await door.poll()
    principal = await door.authenticate(key.key)
    elsewhere = Database(home=tmp_path)
    await elsewhere.open()
    async with door.watch(principal) as stop:
        await elsewhere.run(lambda c: revoke_key(c, clock=CLOCK, key="first"))
        await door.poll()
        assert stop.is_set()
    await elsewhere.close()
    with pytest.raises(InvalidKey, match="revoked"):
        await door.authenticate(key.key)


async def test_scopes_and_expiry_are_enforced(door: Authenticator, database: Database, tmp_path: Path) -> None:
    pepper = Pepper(tmp_path)
    scoped = await database.run(
        lambda c: create_key(
            c, clock=CLOCK, pepper=pepper, tenant_name="t", name="n", tasks=("translation",), models=("opus-*",)
        )
    )
    principal = await door.authenticate(scoped.key)
    principal.require(task="translation", model="opus-mt")
    for task, model in (("text-generation", "opus-mt"), ("translation", "gpt2")):
        with pytest.raises(NotAllowed):
            principal.require(task=task, model=model)
    old = await database.run(
        lambda c: create_key(c, clock=CLOCK, pepper=pepper, tenant_name="t", name="old", expires_us=1)
    )
    with pytest.raises(InvalidKey, match="expired"):
        await door.authenticate(old.key)


async def test_a_key_is_bound_to_its_networks(door: Authenticator, database: Database, tmp_path: Path) -> None:
    made = await database.run(
        lambda c: create_key(
            c,
            clock=CLOCK,
            pepper=Pepper(tmp_path),
            tenant_name="t",
            name="n",
            networks=("192.0.2.0/24", "2001:db8::/32"),
        )
    )
    for peer in ("192.0.2.200", "::ffff:192.0.2.1", "2001:db8::1"):
        assert (await door.authenticate(made.key, peer)).key_name == "n"
    for peer in ("192.0.3.1", "2001:db9::1", "unix", "", None):
        with pytest.raises(NotAllowed, match="network"):
            await door.authenticate(made.key, peer)


async def test_a_revocation_between_the_door_and_the_work_stops_the_work(
    door: Authenticator, database: Database, key: NewKey
) -> None:
    await door.poll()
    principal = await door.authenticate(key.key)
    await database.run(lambda c: revoke_key(c, clock=CLOCK, key="first"))
    await door.poll()
    with pytest.raises(InvalidKey, match="revoked"):
        async with door.watch(principal):
            raise AssertionError("it must not run")
    assert not door._watches  # pyright: ignore[reportPrivateUsage]


async def test_a_suspended_tenant_stops_what_runs_and_can_be_resumed(
    door: Authenticator, database: Database, key: NewKey
) -> None:
    await door.poll()
    principal = await door.authenticate(key.key)
    async with door.watch(principal) as stop:
        await database.run(lambda c: set_status(c, clock=CLOCK, name="acme", status=Status.SUSPENDED))
        await door.poll()
        assert stop.is_set()
    with pytest.raises(TenantSuspended):
        await door.authenticate(key.key)
    await database.run(lambda c: set_status(c, clock=CLOCK, name="acme", status=Status.ACTIVE))
    await door.poll()
    async with door.watch(await door.authenticate(key.key)) as stop:
        assert not stop.is_set()


class Counted(Database):
    """The real database, which counts its transactions."""

    count = 0

    async def run(self, work: Work[T]) -> T:
        self.count += 1
        return await super().run(work)


@pytest.fixture
async def counted(tmp_path: Path) -> AsyncIterator[Counted]:
    made = Counted(home=tmp_path)
    await made.open()
    yield made
    await made.close()


async def test_a_known_key_costs_no_look_up_and_an_unknown_one_costs_one(
    counted: Counted, key: NewKey, tmp_path: Path
) -> None:
    clock = TurnedClock()
    door = Authenticator(database=counted, pepper=Pepper(tmp_path), clock=clock)
    for _ in range(100):
        await door.authenticate(key.key)
    assert counted.count == 1
    stranger = make_key(is_admin=False)
    for _ in range(100):
        with pytest.raises(InvalidKey):
            await door.authenticate(stranger)
    assert counted.count == 2
    clock.turn(11)
    with pytest.raises(InvalidKey):
        await door.authenticate(stranger)
    assert counted.count == 3
    for noise in ("sk-tg-noise", "Bearer", key.key[:-1] + "?"):
        with pytest.raises(InvalidKey):
            await door.authenticate(noise)
    assert counted.count == 3


async def test_what_is_remembered_is_bounded(counted: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.admission.authenticate.CACHE_KEYS_MAX", 10)
    monkeypatch.setattr("app.admission.authenticate.UNKNOWN_MAX", 10)
    pepper = Pepper(tmp_path)
    door = Authenticator(database=counted, pepper=pepper, clock=CLOCK)

    def fill(connection: Any) -> list[str]:
        return [
            create_key(connection, clock=CLOCK, pepper=pepper, tenant_name="t", name=f"k{n}").key for n in range(40)
        ]

    for made in await counted.run(fill):
        await door.authenticate(made)
        with pytest.raises(InvalidKey):
            await door.authenticate(make_key(is_admin=False))
    held = (door._known, door._digests, door._unknown)  # pyright: ignore[reportPrivateUsage]
    assert [len(one) for one in held] == [10, 10, 10]


async def test_a_look_up_that_a_change_overtakes_is_not_remembered(
    door: Authenticator, database: Database, key: NewKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    await door.poll()
    run = database.run

    async def slow(work: Any) -> Any:
        found = await run(work)
        monkeypatch.setattr(database, "run", run)
        await run(lambda c: revoke_key(c, clock=CLOCK, key="first"))
        await door.poll()
        return found

    monkeypatch.setattr(database, "run", slow)
    await door.authenticate(key.key)
    with pytest.raises(InvalidKey, match="revoked"):
        await door.authenticate(key.key)


async def test_keys_are_not_trusted_for_ever_while_the_database_is_away(
    database: Database, key: NewKey, tmp_path: Path
) -> None:
    clock = TurnedClock()
    door = Authenticator(database=database, pepper=Pepper(tmp_path), clock=clock)
    await door.poll()
    await door.authenticate(key.key)
    clock.turn(299)
    await door.authenticate(key.key)
    clock.turn(2)
    with pytest.raises(StorageUnavailable):
        await door.authenticate(key.key)
    await door.poll()
    await door.authenticate(key.key)
