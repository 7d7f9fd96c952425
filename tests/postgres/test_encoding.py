"""A cluster that was made without a locale (initdb in an empty environment) has databases without an encoding."""

from pathlib import Path

import psycopg

from app.clock import SystemClock
from app.metering.database import Database
from app.metering.keys import Pepper, create_key, list_keys
from tests.fixtures.postgres import Postgres


async def test_a_database_without_an_encoding_keeps_names_as_they_are(postgres: Postgres, tmp_path: Path) -> None:
    with psycopg.connect(f"{postgres.url}/postgres", autocommit=True) as operator:
        operator.execute("CREATE DATABASE bare ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    database = Database(home=tmp_path, url=f"{postgres.url}/bare")
    await database.open()
    try:
        pepper = Pepper(tmp_path)
        await database.run(
            lambda c: create_key(c, clock=SystemClock(), pepper=pepper, tenant_name="São José", name="ключ")
        )
        [kept] = await database.run(list_keys)
    finally:
        await database.close()
    assert (kept.tenant, kept.name) == ("São José", "ключ")
