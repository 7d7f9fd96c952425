"""Keys: their form, what is stored of them, and their revocation."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.clock import SystemClock
from app.errors import NotFound
from app.metering.database import Database
from app.metering.keys import ALPHABET, NewKey, Pepper, find_key, is_well_formed, list_keys, make_key, revoke_key


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
