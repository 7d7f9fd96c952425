"""Tenants: made once, changed, suspended, and erased so that the books still balance."""

from pathlib import Path

import pytest

from app.clock import SystemClock
from app.errors import Conflict, InvalidRequest, NotFound
from app.metering import tenants
from app.metering.acts import Operator
from app.metering.audit import list_audit, verify
from app.metering.budgets import add_money
from app.metering.database import Database
from app.metering.keys import NewKey, Pepper, changes_after, list_keys
from app.metering.ledger import Admission, Outcome, Usage, list_entries, open_hold, settle
from app.metering.limits import LimitRule

CLOCK = SystemClock()


@pytest.fixture
def boss(tmp_path: Path) -> Operator:
    return Operator(actor="test", clock=CLOCK, pepper=Pepper(tmp_path))


async def test_a_tenant_is_made_once_and_found_by_id_and_name(database: Database) -> None:
    limits = LimitRule(requests_per_minute=5)
    made = await database.run(lambda c: tenants.create_tenant(c, clock=CLOCK, name=" acme ", weight=3, limits=limits))
    assert (made.name, made.weight, made.status, made.limits) == ("acme", 3, "active", limits)
    for name in (made.id, "acme"):
        assert await database.run(lambda c, name=name: tenants.find_tenant(c, name)) == made
    with pytest.raises(Conflict):
        await database.run(lambda c: tenants.create_tenant(c, clock=CLOCK, name="acme"))
    with pytest.raises(NotFound, match="tenants list"):
        await database.run(lambda c: tenants.find_tenant(c, "nobody"))


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 201])
async def test_what_is_no_name_is_refused(database: Database, name: str) -> None:
    with pytest.raises(InvalidRequest, match="name"):
        await database.run(lambda c: tenants.create_tenant(c, clock=CLOCK, name=name))


async def test_a_change_is_announced_to_every_replica(database: Database, key: NewKey) -> None:
    _, before = await database.run(lambda c: changes_after(c, 0))
    await database.run(lambda c: tenants.update_tenant(c, clock=CLOCK, name="acme", changes={"weight": 9}))
    changed, _ = await database.run(lambda c: changes_after(c, before))
    assert changed == {key.record.tenant_id}
    [record] = await database.run(list_keys)
    assert record.weight == 9


async def test_pages_go_through_every_tenant_once(database: Database) -> None:
    for number in range(7):
        await database.run(lambda c, number=number: tenants.create_tenant(c, clock=CLOCK, name=f"t{number}"))
    seen: list[str] = []
    after = ""
    while page := await database.run(lambda c, after=after: tenants.list_tenants(c, after=after, limit=3)):
        seen += [record.name for record in page]
        after = page[-1].id
    assert sorted(seen) == [f"t{number}" for number in range(7)]


async def test_an_erased_tenant_leaves_sums_and_nothing_of_who_it_was(
    database: Database, boss: Operator, tmp_path: Path
) -> None:
    secrets = ("Firma Zyxwvut", "Umbenannt Qponmlk", "Schluessel Jihgfed", "198.51.100.77", "Zahlung Wvutsr")
    made = await database.run(
        lambda c: boss.create_key(c, tenant_name=secrets[0], name=secrets[2], networks=(secrets[3],))
    )
    await database.run(lambda c: boss.update_tenant(c, name=secrets[0], changes={"name": secrets[1]}))
    await database.run(lambda c: boss.create_tenant(c, name="other"))
    admission = Admission(
        request_id="r", tenant_id=made.record.tenant_id, key_id=made.record.id, model="m", task="t", route="x",
        prices={"input_token": 5_000}, input_tokens=10, output_tokens_max=0,
    )  # fmt: skip
    await database.run(lambda c: open_hold(c, admission))
    await database.run(lambda c: settle(c, admission, Outcome.FINISHED, Usage(input_tokens=10), at_us=1))
    await database.run(lambda c: add_money(c, clock=CLOCK, tenant_name=secrets[1], amount_nano=1, note=secrets[4]))

    def held() -> bytes:
        return b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())

    assert all(secret.encode() in held() for secret in secrets)
    erased = await database.run(lambda c: boss.erase_tenant(c, name=secrets[1]))
    await database.flush_log()
    assert erased.status == "erased"
    for secret in (*secrets, made.record.display, made.record.display[-4:] + '"'):
        assert secret.encode() not in held(), secret
    [entry] = await database.run(list_entries)
    assert (entry["input_tokens"], entry["cost_nano"], entry["key_name"]) == (10, 50, "erased")
    assert entry["tenant"] == f"erased-{made.record.tenant_id}"
    [record] = await database.run(list_keys)
    assert record.revoked_us is not None
    verdict = await database.run(lambda c: verify(c, pepper=Pepper(tmp_path)))
    assert verdict.is_sound, verdict.faults
    rows = await database.run(list_audit)
    assert [row["act"] for row in rows if row["details"] is None] == ["tenant.create", "key.create", "tenant.update"]
    assert rows[-1]["details"] == {"keys": 1}
    for work in (boss.resume_tenant, boss.erase_tenant):
        with pytest.raises(Conflict, match="erased"):
            await database.run(lambda c, work=work: work(c, name=made.record.tenant_id))
