"""A new pepper under running servers: keys follow when they are used, nothing that was signed becomes doubtful."""

import json
import os
from pathlib import Path

import pytest

from app.admission.authenticate import Authenticator
from app.errors import Conflict, InvalidKey, NotFound
from app.metering import audit
from app.metering.acts import Operator
from app.metering.database import Database
from app.metering.keys import NewKey, Pepper, create_key
from app.metering.peppers import activate, keys_under, pepper_rows
from tests.cli.test_keys import tollgate
from tests.fixtures.clock import TurnedClock

CLOCK = TurnedClock()


def replica(database: Database, home: Path) -> Authenticator:
    return Authenticator(database=database, pepper=Pepper(home), clock=CLOCK)


async def test_a_key_moves_to_the_new_pepper_when_it_is_used_and_the_old_one_can_be_retired(
    database: Database, key: NewKey, tmp_path: Path
) -> None:
    serving, pepper = replica(database, tmp_path), Pepper(tmp_path)
    idle = await database.run(lambda c: create_key(c, clock=CLOCK, pepper=pepper, tenant_name="acme", name="idle"))
    await serving.authenticate(key.key)
    old, new = pepper.id, pepper.add()
    assert (tmp_path / f"pepper.{new}").stat().st_mode & 0o777 == 0o600
    await database.run(lambda c: activate(c, pepper, new, at_us=1))
    made = await database.run(lambda c: create_key(c, clock=CLOCK, pepper=pepper, tenant_name="acme", name="late"))
    assert made.record.pepper_id == new
    await serving.poll()
    for one in (key, made):
        assert (await serving.authenticate(one.key)).key_id == one.record.id
    assert await database.run(lambda c: keys_under(c, old)) == 2
    await serving.note_uses()
    assert await database.run(lambda c: keys_under(c, old)) == 1, "the idle one is left"
    assert (await replica(database, tmp_path).authenticate(idle.key)).key_name == "idle"
    with pytest.raises(Conflict):
        pepper.retire(new)
    secret = pepper.webhook_secret(old, "webhook_1", 1)
    pepper.retire(old)
    assert not (tmp_path / "pepper").exists()
    again = Pepper(tmp_path)
    assert again.webhook_secret(old, "webhook_1", 1) == secret
    fresh = replica(database, tmp_path)
    await fresh.poll()
    for one in (key, made):
        assert (await fresh.authenticate(one.key)).key_id == one.record.id
    with pytest.raises(InvalidKey):
        await fresh.authenticate(idle.key)


async def test_the_audit_log_verifies_across_peppers(database: Database, tmp_path: Path) -> None:
    pepper = Pepper(tmp_path)
    by = Operator(actor="cli:x", clock=CLOCK, pepper=pepper)
    await database.run(lambda c: by.create_tenant(c, name="one"))
    old, new = pepper.id, pepper.add()
    await database.run(lambda c: activate(c, pepper, new, at_us=1))
    await database.run(lambda c: by.create_tenant(c, name="two"))
    pepper.retire(old)
    verdict = await database.run(lambda c: audit.verify(c, pepper=Pepper(tmp_path)))
    assert (verdict.rows, verdict.faults) == (2, ())
    rows = await database.run(lambda c: pepper_rows(c, pepper))
    assert {row["id"]: (row["in_use"], row["retired"], row["audit_rows"]) for row in rows} == {
        new: (True, False, 1), old: (False, True, 1),
    }  # fmt: skip


async def test_a_replica_without_the_pepper_in_use_makes_nothing_and_still_knows_what_it_knew(
    database: Database, key: NewKey, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "pepper").write_bytes((tmp_path / "pepper").read_bytes())
    other, pepper = replica(database, elsewhere), Pepper(tmp_path)
    new = pepper.add()
    await database.run(lambda c: activate(c, pepper, new, at_us=1))
    await other.poll()
    assert (await other.authenticate(key.key)).key_id == key.record.id
    with pytest.raises(NotFound, match=f"copy the file pepper.{new}"):
        await database.run(lambda c: create_key(c, clock=CLOCK, pepper=Pepper(elsewhere), tenant_name="acme", name="x"))
    os.link(tmp_path / f"pepper.{new}", elsewhere / f"pepper.{new}")
    await other.poll()
    await other.authenticate(key.key)
    await other.note_uses()
    assert await database.run(lambda c: keys_under(c, new)) == 1


def test_the_command_tells_what_is_left_and_refuses_to_lose_keys(tmp_path: Path) -> None:
    tollgate(tmp_path, "keys", "create", "--tenant", "acme", "--name", "web")
    [first] = json.loads(tollgate(tmp_path, "pepper", "list", "--json").stdout)
    assert (first["file"], first["keys"], first["in_use"]) == ("pepper", 1, True)
    new = json.loads(tollgate(tmp_path, "pepper", "rotate", "--json").stdout)["id"]
    refused = tollgate(tmp_path, "pepper", "retire", first["id"])
    assert refused.returncode == 1 and "1 keys are still digested" in refused.stderr
    assert tollgate(tmp_path, "pepper", "retire", new).returncode == 1
    assert tollgate(tmp_path, "pepper", "retire", first["id"], "--yes").returncode == 0
    found = {row["id"]: row for row in json.loads(tollgate(tmp_path, "pepper", "list", "--json").stdout)}
    assert (found[first["id"]]["retired"], found[new]["in_use"]) == (True, True)
    assert json.loads(tollgate(tmp_path, "audit", "verify", "--json").stdout)["is_sound"]
