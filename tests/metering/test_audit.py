"""The audit log: each act leaves a row, and a row that was touched is found."""

import inspect
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert, select, update

from app.clock import SystemClock
from app.errors import InvalidRequest, NotAllowed, NotFound
from app.metering import audit
from app.metering.acts import Operator
from app.metering.database import Database
from app.metering.keys import Pepper, list_keys
from app.metering.limits import LimitRule
from app.metering.tables import audit_log

CLOCK = SystemClock()
LIMITS = LimitRule(tokens_per_minute=100)


def operator(home: Path, *, acts: tuple[str, ...] | None = None) -> Operator:
    return Operator(actor="key:key_1", clock=CLOCK, pepper=Pepper(home), acts=acts)


@pytest.fixture
def boss(tmp_path: Path) -> Operator:
    return operator(tmp_path)


def everything(connection: Connection, boss: Operator) -> dict[str, int]:
    """Every act once; how many rows each left, by method."""
    left: dict[str, int] = {}

    def did(method: str, /, **given: Any) -> Any:
        before = audit.newest(connection)
        done = getattr(boss, method)(connection, **given)
        left[method] = audit.newest(connection) - before
        return done

    did("create_tenant", name="acme", limits=LIMITS)
    did("update_tenant", name="acme", changes={"weight": 2})
    did("set_tenant_limits", name="acme", limits=LIMITS)
    did("suspend_tenant", name="acme")
    did("resume_tenant", name="acme")
    first = did("create_key", tenant_name="acme", name="web")
    did("update_key", key="web", changes={"networks": ("192.0.2.0/24",)})
    did("set_key_limits", key="web", limits=LIMITS)
    second = did("rotate_key", key=first.record.id, overlap_us=10**6)
    did("revoke_key", key=second.record.id)
    did("note", act="model.load", target="m", details={"model": "m"})
    did("erase_tenant", name="acme")
    return left


async def rows(database: Database) -> list[dict[str, Any]]:
    return await database.run(lambda c: audit.list_audit(c, limit=1000))


async def faults(database: Database, home: Path, head: str | None = None) -> tuple[str, ...]:
    return (await database.run(lambda c: audit.verify(c, pepper=Pepper(home), head=head))).faults


async def test_every_act_leaves_its_row(database: Database, boss: Operator, tmp_path: Path) -> None:
    left = await database.run(lambda c: everything(c, boss))
    methods = {name for name, _ in inspect.getmembers(Operator, inspect.isfunction) if not name.startswith("_")}
    assert set(left) == methods - {"require"}, "a new act belongs in this test"
    assert left == dict.fromkeys(left, 1) | {"rotate_key": 2}
    assert await faults(database, tmp_path) == ()


async def test_a_row_says_who_and_what_changed_and_no_secret(database: Database, boss: Operator) -> None:
    made = await database.run(lambda c: boss.create_key(c, tenant_name="acme", name="web", models=("a-*",)))
    await database.run(lambda c: boss.update_key(c, key="web", changes={"models": None, "name": "app"}))
    tenant, create, change = await rows(database)
    assert (tenant["act"], create["act"], change["act"]) == ("tenant.create", "key.create", "key.update")
    assert change["actor"] == "key:key_1"
    assert (change["target"], change["tenant_id"]) == (made.record.id, made.record.tenant_id)
    assert change["details"] == {"before": {"name": "web", "models": ["a-*"]}, "after": {"name": "app", "models": None}}
    assert create["details"]["before"] is None
    assert made.key[10:] not in str([tenant, create, change])


async def test_an_act_that_fails_leaves_nothing(database: Database, boss: Operator) -> None:
    with pytest.raises(NotFound):
        await database.run(lambda c: boss.revoke_key(c, key="nobody"))
    with pytest.raises(InvalidRequest):
        await database.run(lambda c: boss.create_key(c, tenant_name="acme", name="web", networks=("300.1.1.1",)))
    assert await rows(database) == []


TAMPERED: list[tuple[str, Any, str]] = [
    ("an actor", lambda: update(audit_log).where(audit_log.c.sequence == 3).values(actor="x"), "row 3 was changed"),
    ("a time", lambda: update(audit_log).where(audit_log.c.sequence == 3).values(at_us=1), "row 3 was changed"),
    (
        "details",
        lambda: update(audit_log).where(audit_log.c.sequence == 3).values(details={"after": {}}),
        "row 3: its details were changed",
    ),
    (
        "details taken away",
        lambda: update(audit_log).where(audit_log.c.sequence == 3).values(details=None, salt=None),
        "row 3: its details were removed",
    ),
    ("a row in the middle", lambda: delete(audit_log).where(audit_log.c.sequence == 3), "rows 3 to 3 are missing"),
    ("the first row", lambda: delete(audit_log).where(audit_log.c.sequence == 1), "rows 1 to 1 are missing"),
]


@pytest.mark.parametrize(("_", "tamper", "said"), TAMPERED, ids=[name for name, _, _ in TAMPERED])
async def test_a_row_that_was_touched_is_found(
    database: Database, boss: Operator, tmp_path: Path, _: str, tamper: Any, said: str
) -> None:
    for number in range(5):
        await database.run(lambda c, number=number: boss.create_tenant(c, name=f"t{number}"))
    assert await faults(database, tmp_path) == ()
    await database.run(lambda c: c.execute(tamper()))
    assert said in " | ".join(await faults(database, tmp_path))


async def test_rows_cut_off_the_end_are_missed_by_who_noted_the_head(
    database: Database, boss: Operator, tmp_path: Path
) -> None:
    for number in range(3):
        await database.run(lambda c, number=number: boss.create_tenant(c, name=f"t{number}"))
    head = (await database.run(lambda c: audit.verify(c, pepper=Pepper(tmp_path)))).head
    await database.run(lambda c: boss.create_tenant(c, name="later"))
    assert await faults(database, tmp_path, head) == ()
    await database.run(lambda c: c.execute(delete(audit_log).where(audit_log.c.sequence > 2)))
    assert await faults(database, tmp_path) == ()
    assert await faults(database, tmp_path, head) == ("rows 3 to 3 are missing",)
    with pytest.raises(InvalidRequest, match="head"):
        await faults(database, tmp_path, "nonsense")


async def test_who_has_the_database_but_not_the_pepper_cannot_sign(
    database: Database, boss: Operator, tmp_path: Path
) -> None:
    await database.run(lambda c: boss.create_tenant(c, name="t"))
    other = Pepper(tmp_path / "elsewhere")

    def forge(connection: Connection) -> None:
        last = connection.execute(select(audit_log)).mappings().one()
        row = dict(last) | {"sequence": 2, "pepper_id": Pepper(tmp_path).id}
        connection.execute(
            insert(audit_log).values(row | {"chain": other.sign_audit(last["chain"] + audit.bound(row))})
        )

    await database.run(forge)
    assert await faults(database, tmp_path) == ("row 2 was changed, or the row before it",)


async def test_an_admin_acts_only_as_far_as_its_key_allows(database: Database, boss: Operator, tmp_path: Path) -> None:
    clerk = operator(tmp_path, acts=("key.*",))
    made = await database.run(lambda c: clerk.create_key(c, tenant_name="acme", name="web"))
    with pytest.raises(NotAllowed, match=r"tenant\.suspend"):
        await database.run(lambda c: clerk.suspend_tenant(c, name="acme"))
    for acts in (None, ("*",), ("tenant.*",), ("key.*", "tenant.read"), ("*.create",)):
        with pytest.raises(NotAllowed, match="hand it out"):
            await database.run(
                lambda c, acts=acts: clerk.create_key(c, tenant_name="acme", name="x", is_admin=True, acts=acts)
            )
    limited = await database.run(
        lambda c: clerk.create_key(c, tenant_name="acme", name="y", is_admin=True, acts=("key.read", "key.*"))
    )
    all_mighty = await database.run(lambda c: boss.create_key(c, tenant_name="acme", name="z", is_admin=True))
    with pytest.raises(NotAllowed):
        await database.run(lambda c: clerk.rotate_key(c, key=all_mighty.record.id, overlap_us=0))
    with pytest.raises(NotAllowed):
        await database.run(lambda c: clerk.update_key(c, key=limited.record.id, changes={"acts": None}))
    assert len(await database.run(list_keys)) == 3
    assert made.record.acts is None
