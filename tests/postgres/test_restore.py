"""The runbook for PostgreSQL: pg_dump while it is used, pg_restore into an empty database, and the books balance."""

import subprocess
from pathlib import Path

from app.clock import SystemClock
from app.metering.database import Database, microseconds
from app.metering.keys import NewKey, Pepper, create_key
from app.metering.ledger import Admission, Outcome, Usage, list_entries, open_priced_hold, settle
from app.metering.verify import drifts
from deploy.processes import postgres_folder
from tests.fixtures.postgres import Postgres

CLOCK = SystemClock()


async def sell(database: Database, key: NewKey, name: str, *, is_settled: bool = True) -> None:
    """A request, from its hold to its entry."""
    asked = Admission(
        request_id=f"req_{name}", tenant_id=key.record.tenant_id, key_id=key.record.id, model="m", task="t",
        route="/v1/x", input_tokens=3, output_tokens_max=20, is_free=True,
    )  # fmt: skip
    await database.run(lambda c: open_priced_hold(c, asked, clock=CLOCK))
    if is_settled:
        used, at_us = Usage(input_tokens=3, output_tokens=5), microseconds(CLOCK.now())
        await database.run(lambda c: settle(c, asked, Outcome.FINISHED, used, at_us=at_us))


async def test_a_dump_that_was_taken_under_way_is_restored_and_sold_on(postgres: Postgres, tmp_path: Path) -> None:
    url, folder, dump = postgres.fresh(), postgres_folder(), tmp_path / "ledger.dump"
    database = Database(home=tmp_path, url=url)
    await database.open()
    key = await database.run(
        lambda c: create_key(c, clock=CLOCK, pepper=Pepper(tmp_path), tenant_name="acme", name="first")
    )
    await sell(database, key, "settled")
    await sell(database, key, "running", is_settled=False)
    subprocess.run([folder / "pg_dump", "-Fc", "-f", dump, url], check=True)  # noqa: ASYNC221
    await sell(database, key, "lost")
    await database.close()

    restored = postgres.fresh()
    subprocess.run([folder / "pg_restore", "--exit-on-error", "-d", restored, dump], check=True)  # noqa: ASYNC221
    again = Database(home=tmp_path, url=restored)
    await again.open()
    entries, found = await again.run(lambda c: (list_entries(c), list(drifts(c))))
    assert [entry["request_id"] for entry in entries] == ["req_settled"]
    assert found == []
    await sell(again, key, "after")
    assert await again.run(lambda c: list(drifts(c))) == []
    await again.close()
