"""monthly partitions of entries and charges on PostgreSQL; sums of what was pruned"""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from app.metering.partitions import lowest_entry_id, make_months_of_entries

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None
BY_ID = sa.String(length=40, collation="C")
"""Ids are compared as bytes, whatever the database's language, so that months are ranges of them."""


def upgrade() -> None:
    op.create_table(
        "usage_pruned",
        sa.Column("hour_us", sa.BigInteger(), nullable=False),
        sa.Column("tenant_id", sa.String(length=40), nullable=False),
        sa.Column("key_id", sa.String(length=40), nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("task", sa.String(length=40), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost_nano", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("characters", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("hour_us", "tenant_id", "key_id", "model", "task", name=op.f("pk_usage_pruned")),
    )
    with op.batch_alter_table("budget_window") as batch:
        batch.add_column(sa.Column("pruned_nano", sa.BigInteger(), server_default="0", nullable=False))
    if op.get_bind().dialect.name == "postgresql":
        partition()


def partition() -> None:
    """Both tables anew, in months; every row is moved in this transaction."""
    lowest = lowest_entry_id(op.get_bind())
    op.drop_constraint("fk_budget_charge_request_id_usage_entry", "budget_charge")
    for table, indexes in (
        ("usage_entry", ("ix_usage_entry_occurred_us", "ix_usage_entry_tenant_time")),
        ("budget_charge", ("ix_budget_charge_window",)),
    ):
        op.drop_constraint(f"pk_{table}", table)
        for index in indexes:
            op.drop_index(index, table)
        op.rename_table(table, f"{table}_before")
    op.create_table(
        "usage_entry",
        sa.Column("id", BY_ID, nullable=False),
        sa.Column("occurred_us", sa.BigInteger(), nullable=False),
        sa.Column("tenant_id", sa.String(length=40), nullable=False),
        sa.Column("key_id", sa.String(length=40), nullable=False),
        sa.Column("model", sa.String(length=200), nullable=False),
        sa.Column("task", sa.String(length=40), nullable=False),
        sa.Column("route", sa.String(length=100), nullable=False),
        sa.Column("outcome", sa.String(length=20), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("characters", sa.BigInteger(), nullable=False),
        sa.Column("prices", sa.JSON(), nullable=False),
        sa.Column("cost_nano", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("duration_ms", sa.BigInteger(), nullable=False),
        sa.Column("replica_id", sa.String(length=40), nullable=False),
        postgresql_partition_by="RANGE (id)",
    )
    op.create_table(
        "budget_charge",
        sa.Column("request_id", BY_ID, nullable=False),
        sa.Column("budget_id", sa.String(length=40), nullable=False),
        sa.Column("window_us", sa.BigInteger(), nullable=False),
        sa.Column("cost_nano", sa.BigInteger(), nullable=False),
        postgresql_partition_by="RANGE (request_id)",
    )
    for table in ("usage_entry", "budget_charge"):
        op.execute(f"CREATE TABLE {table}_rest PARTITION OF {table} DEFAULT")
    make_months_of_entries(op.get_bind(), lowest_id=lowest, now=datetime.now(UTC))
    for table in ("usage_entry", "budget_charge"):
        names = ", ".join(column["name"] for column in sa.inspect(op.get_bind()).get_columns(table))
        op.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM {table}_before")  # nosec B608
        op.drop_table(f"{table}_before")
    op.create_primary_key("pk_usage_entry", "usage_entry", ["id"])
    op.create_foreign_key("fk_usage_entry_tenant_id_tenant", "usage_entry", "tenant", ["tenant_id"], ["id"])
    op.create_foreign_key("fk_usage_entry_key_id_api_key", "usage_entry", "api_key", ["key_id"], ["id"])
    op.create_index("ix_usage_entry_occurred_us", "usage_entry", ["occurred_us"])
    op.create_index("ix_usage_entry_tenant_time", "usage_entry", ["tenant_id", "occurred_us"])
    op.create_primary_key("pk_budget_charge", "budget_charge", ["request_id", "budget_id"])
    op.create_foreign_key("fk_budget_charge_budget_id_budget", "budget_charge", "budget", ["budget_id"], ["id"])
    op.create_foreign_key(
        "fk_budget_charge_request_id_usage_entry", "budget_charge", "usage_entry", ["request_id"], ["id"]
    )
    op.create_index("ix_budget_charge_window", "budget_charge", ["budget_id", "window_us"])


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        raise NotImplementedError("months of entries are not joined again; copy the database with `tollgate db copy`")
    with op.batch_alter_table("budget_window") as batch:
        batch.drop_column("pruned_nano")
    op.drop_table("usage_pruned")
