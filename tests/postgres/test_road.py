"""Two whole servers on one PostgreSQL, over HTTP."""

import asyncio
from pathlib import Path
from typing import Any

from app.metering.budgets import list_budgets
from app.metering.verify import drifts
from tests.fixtures.postgres import Postgres
from tests.fixtures.server import running_server
from tests.test_money import BODY, CLOCK, sell

INLINE = {"threads": 1, "transport": "inline"}


async def test_two_servers_share_keys_budget_and_books(
    postgres: Postgres, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    url = postgres.fresh()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "pepper").write_bytes(b"p" * 32)
    (tmp_path / "b" / "pepper").write_bytes(b"p" * 32)
    async with (
        running_server(tmp_path / "a", checkpoints, INLINE, database_url=url) as one,
        running_server(tmp_path / "b", checkpoints, INLINE, database_url=url) as other,
    ):
        body: dict[str, Any] = BODY | {"max_tokens": 10}
        await sell(one, balance_nano=10 * 23 + 5)
        headers = {"authorization": f"Bearer {one.key}"}
        answers = await asyncio.gather(
            *(
                (one, other)[number % 2].client.post("/v1/completions", json=body, headers=headers)
                for number in range(64)
            )
        )
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {200, 429}
        [budget] = await one.database.run(lambda c: list_budgets(c, clock=CLOCK))
        assert (budget.spent_nano, budget.held_nano) == (statuses.count(200) * 23, 0)
        assert budget.spent_nano <= budget.limit_nano
        assert await other.database.run(lambda c: list(drifts(c))) == []
        entries = await other.entries()
        assert len({entry["request_id"] for entry in entries}) == statuses.count(200) == len(entries)
        path = "/v1/requests/" + entries[0]["request_id"]
        assert (await other.client.get(path, headers=headers)).json()["status"] == "settled"
