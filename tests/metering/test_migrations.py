"""The migrations make exactly the tables that the code uses."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from app.metering.database import Database
from app.metering.tables import metadata


async def test_nothing_is_missing_from_the_migrations(database: Database) -> None:
    assert await database.run(lambda c: compare_metadata(MigrationContext.configure(c), metadata)) == []
