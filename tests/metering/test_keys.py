"""Keys: their form, what is stored of them, and their revocation."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.clock import SystemClock
from app.errors import Conflict, InvalidRequest, NotFound
from app.metering.database import Database, microseconds
from app.metering.keys import (
    ALPHABET,
    NewKey,
    Pepper,
    create_key,
    find_key,
    get_key,
    is_usable,
    is_well_formed,
    list_keys,
    make_key,
    note_uses,
    revoke_key,
    rotate_key,
)
from app.metering.limits import LimitRule
from app.metering.moments import moment_us, span_us
from tests.fixtures.clock import TurnedClock


@given(is_admin=st.booleans(), data=st.data())
def test_a_single_wrong_character_is_told_without_a_look_up(is_admin: bool, data: st.DataObject) -> None:
    key = make_key(is_admin=is_admin)
    assert is_well_formed(key)
    place = data.draw(st.integers(0, len(key) - 1))
    other = data.draw(st.sampled_from([letter for letter in ALPHABET if letter != key[place]]))
    assert not is_well_formed(key[:place] + other + key[place + 1 :])


@given(noise=st.text(max_size=80))
def test_noise_is_no_key(noise: str) -> None:
    assert not is_well_formed(noise)


async def test_only_the_digest_is_kept(database: Database, key: NewKey, tmp_path: Path) -> None:
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir())  # noqa: ASYNC240 (a test may wait)
    assert key.key.encode() not in held
    assert key.key[10:40].encode() not in held
    assert stat.S_IMODE((tmp_path / "pepper").stat().st_mode) == 0o600


async def test_a_key_is_found_by_its_digest_and_survives_a_restart(
    database: Database, key: NewKey, tmp_path: Path
) -> None:
    digest = Pepper(tmp_path).digest(key.key)
    again = Database(home=tmp_path)
    await again.open()
    found = await again.run(lambda connection: find_key(connection, digest))
    assert found == key.record
    assert await again.run(lambda connection: find_key(connection, b"x" * 32)) is None
    await again.close()


async def test_a_revoked_key_says_so_and_cannot_be_revoked_twice(database: Database, key: NewKey) -> None:
    revoked = await database.run(lambda c: revoke_key(c, clock=SystemClock(), key="first"))
    assert revoked.revoked_us is not None
    assert await database.run(list_keys) == [revoked]
    with pytest.raises(NotFound, match="0 active keys"):
        await database.run(lambda c: revoke_key(c, clock=SystemClock(), key="first"))


async def test_a_successor_has_the_same_rights_and_the_old_key_ends_after_the_overlap(
    database: Database, tmp_path: Path
) -> None:
    clock, pepper = TurnedClock(), Pepper(tmp_path)
    old = await database.run(
        lambda c: create_key(
            c, clock=clock, pepper=pepper, tenant_name="acme", name="web", tasks=("translation",), models=("opus-*",),
            networks=("192.0.2.1",), limits=LimitRule(concurrent_requests=2),
        )
    )  # fmt: skip
    assert old.record.networks == ("192.0.2.1/32",)
    new = await database.run(lambda c: rotate_key(c, clock=clock, pepper=pepper, key="web", overlap_us=3_600_000_000))
    ended = await database.run(lambda c: get_key(c, old.record.id))
    for name in ("tenant", "name", "tasks", "models", "networks", "limits", "is_admin", "expires_us"):
        assert getattr(new.record, name) == getattr(old.record, name), name
    assert ended.replaced_by == new.record.id
    now_us = microseconds(clock.now())
    assert is_usable(ended, now_us + 3_599_000_000)
    assert not is_usable(ended, now_us + 3_600_000_000)
    with pytest.raises(Conflict, match="rotated before"):
        await database.run(lambda c: rotate_key(c, clock=clock, pepper=pepper, key=old.record.id, overlap_us=0))
    third = await database.run(lambda c: rotate_key(c, clock=clock, pepper=pepper, key="web", overlap_us=0))
    assert third.record.id not in (old.record.id, new.record.id)
    replaced = await database.run(lambda c: get_key(c, new.record.id))
    assert not is_usable(replaced, now_us)


async def test_a_lifetime_is_handed_on_counted_anew(database: Database, tmp_path: Path) -> None:
    clock, pepper = TurnedClock(), Pepper(tmp_path)
    day_us = 86_400_000_000
    ends_us = microseconds(clock.now()) + 90 * day_us
    await database.run(
        lambda c: create_key(c, clock=clock, pepper=pepper, tenant_name="t", name="k", expires_us=ends_us)
    )
    clock.turn(80 * 86_400)
    new = await database.run(lambda c: rotate_key(c, clock=clock, pepper=pepper, key="k", overlap_us=30 * day_us))
    assert new.record.expires_us == microseconds(clock.now()) + 90 * day_us
    [old, _] = await database.run(list_keys)
    assert old.expires_us == ends_us, "an overlap never prolongs the old key"


async def test_the_last_use_never_goes_back(database: Database, key: NewKey) -> None:
    for used_us, expected in ((5, 5), (9, 9), (7, 9)):
        await database.run(lambda c, used_us=used_us: note_uses(c, {key.record.id: used_us}))
        assert (await database.run(lambda c: get_key(c, key.record.id))).last_used_us == expected


@pytest.mark.parametrize("networks", [("300.0.0.1",), ("here",), ()])
async def test_networks_that_are_none_are_refused(
    database: Database, tmp_path: Path, networks: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await database.run(
            lambda c: create_key(
                c, clock=SystemClock(), pepper=Pepper(tmp_path), tenant_name="t", name="k", networks=networks
            )
        )
    assert refused.value.field == "networks"


@pytest.mark.parametrize("text", ["", "90", "d", "-1d", "1w", "999999999d", "2001-01-01", "soon"])
def test_what_is_no_moment_to_come_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        moment_us(text, clock=TurnedClock())


def test_moments_are_read_as_lengths_and_dates() -> None:
    clock = TurnedClock()
    now_us = microseconds(clock.now())
    assert moment_us("90m", clock=clock) - now_us == span_us("90m") == 5_400_000_000
    assert moment_us("2026-11-02", clock=clock) - now_us == span_us("1d")
    assert moment_us("2026-11-02T01:00:00+01:00", clock=clock) - now_us == span_us("1d")
