"""budgets with their windows, top-ups and charges; sums by day; idempotency keys"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("hold") as batch:
        batch.add_column(sa.Column("windows", sa.JSON(), server_default="[]", nullable=False))
    with op.batch_alter_table("usage_hour") as batch:
        batch.add_column(sa.Column("cached_tokens", sa.BigInteger(), server_default="0", nullable=False))
        batch.add_column(sa.Column("characters", sa.BigInteger(), server_default="0", nullable=False))
    op.create_table(
        "usage_day",
        sa.Column("day_us", sa.BigInteger(), nullable=False),
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
        sa.PrimaryKeyConstraint("day_us", "tenant_id", "key_id", "model", "task", name=op.f("pk_usage_day")),
    )
    fill_sums()
    op.create_table(
        "budget",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant_id", sa.String(length=40), nullable=False),
        sa.Column("key_id", sa.String(length=40), nullable=True),
        sa.Column("scope_id", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("limit_nano", sa.BigInteger(), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_budget_tenant_id_tenant")),
        sa.ForeignKeyConstraint(["key_id"], ["api_key.id"], name=op.f("fk_budget_key_id_api_key")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budget")),
        sa.UniqueConstraint("scope_id", "kind", name=op.f("uq_budget_scope_id_kind")),
    )
    op.create_table(
        "budget_window",
        sa.Column("budget_id", sa.String(length=40), nullable=False),
        sa.Column("window_us", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("limit_nano", sa.BigInteger(), nullable=False),
        sa.Column("spent_nano", sa.BigInteger(), nullable=False),
        sa.Column("held_nano", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["budget_id"], ["budget.id"], name=op.f("fk_budget_window_budget_id_budget")),
        sa.PrimaryKeyConstraint("budget_id", "window_us", name=op.f("pk_budget_window")),
    )
    op.create_table(
        "top_up",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("budget_id", sa.String(length=40), nullable=False),
        sa.Column("amount_nano", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.String(length=200), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["budget_id"], ["budget.id"], name=op.f("fk_top_up_budget_id_budget")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_top_up")),
    )
    with op.batch_alter_table("top_up") as batch:
        batch.create_index(batch.f("ix_top_up_budget_id"), ["budget_id"], unique=False)
    op.create_table(
        "budget_charge",
        sa.Column("request_id", sa.String(length=40), nullable=False),
        sa.Column("budget_id", sa.String(length=40), nullable=False),
        sa.Column("window_us", sa.BigInteger(), nullable=False),
        sa.Column("cost_nano", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["budget_id"], ["budget.id"], name=op.f("fk_budget_charge_budget_id_budget")),
        sa.ForeignKeyConstraint(
            ["request_id"], ["usage_entry.id"], name=op.f("fk_budget_charge_request_id_usage_entry")
        ),
        sa.PrimaryKeyConstraint("request_id", "budget_id", name=op.f("pk_budget_charge")),
    )
    with op.batch_alter_table("budget_charge") as batch:
        batch.create_index("ix_budget_charge_window", ["budget_id", "window_us"], unique=False)
    op.create_table(
        "idempotency",
        sa.Column("tenant_id", sa.String(length=40), nullable=False),
        sa.Column("key_hash", sa.String(length=64), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("request_id", sa.String(length=40), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("replica_id", sa.String(length=40), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "key_hash", name=op.f("pk_idempotency")),
    )
    with op.batch_alter_table("idempotency") as batch:
        batch.create_index(batch.f("ix_idempotency_expires_us"), ["expires_us"], unique=False)


def fill_sums() -> None:
    """Sums by hour and day of the entries that are there already."""
    same, counted = (
        "tenant_id, key_id, model, task",
        ("input_tokens", "output_tokens", "cost_nano", "cached_tokens", "characters"),
    )
    sums = ", ".join(f"SUM({name})" for name in counted)
    op.execute("DELETE FROM usage_hour")
    for table, moment, length in (("usage_hour", "hour_us", 3_600_000_000), ("usage_day", "day_us", 86_400_000_000)):
        start = f"occurred_us - occurred_us % {length}"
        op.execute(
            f"INSERT INTO {table} ({moment}, {same}, requests, {', '.join(counted)}) "
            f"SELECT {start}, {same}, COUNT(*), {sums} FROM usage_entry GROUP BY {start}, {same}"  # nosec B608
        )


def downgrade() -> None:
    for table in ("idempotency", "budget_charge", "top_up", "budget_window", "budget", "usage_day"):
        op.drop_table(table)
    with op.batch_alter_table("usage_hour") as batch:
        batch.drop_column("characters")
        batch.drop_column("cached_tokens")
    with op.batch_alter_table("hold") as batch:
        batch.drop_column("windows")
