"""The books are compared as of one moment: what is sold meanwhile is no difference."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from app.metering import verify
from app.metering.database import Database
from app.metering.keys import Pepper, create_key
from tests.fixtures.postgres import Postgres
from tests.postgres.test_restore import CLOCK, sell


async def test_a_sale_in_the_middle_of_a_check_is_no_difference(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(home=tmp_path, url=postgres.fresh())
    await database.open()
    key = await database.run(
        lambda c: create_key(c, clock=CLOCK, pepper=Pepper(tmp_path), tenant_name="acme", name="first")
    )
    await sell(database, key, "before")
    loop, real, sold = asyncio.get_running_loop(), verify.sums, list[str]()

    def and_sell(connection: Any, chosen: Any) -> Any:
        found = real(connection, chosen)
        if len(sold) < 4:
            sold.append(f"beside{len(sold)}")
            asyncio.run_coroutine_threadsafe(sell(database, key, sold[-1]), loop).result(30)
        return found

    monkeypatch.setattr(verify, "sums", and_sell)
    assert await database.run(verify.balance) == []
    assert len(sold) == 4 and await database.run(lambda c: list(verify.drifts(c))) == []
    await database.close()
