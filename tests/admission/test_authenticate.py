"""Keys at the door: refused alike when unknown, refused within a poll when another process revokes them."""

from pathlib import Path

import pytest

from app.admission.authenticate import Authenticator
from app.clock import SystemClock
from app.errors import InvalidKey, MissingKey, NotAllowed
from app.metering.database import Database
from app.metering.keys import NewKey, Pepper, create_key, make_key, revoke_key

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
