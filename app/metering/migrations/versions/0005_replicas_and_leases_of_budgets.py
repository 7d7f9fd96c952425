"""replicas with their beats, and what they set aside of budgets for the time when the database is away"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "replica",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.Column("folder", sa.String(length=1000), nullable=False),
        sa.Column("started_us", sa.BigInteger(), nullable=False),
        sa.Column("seen_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_replica")),
    )
    op.create_table(
        "budget_lease",
        sa.Column("replica_id", sa.String(length=40), nullable=False),
        sa.Column("budget_id", sa.String(length=40), nullable=False),
        sa.Column("window_us", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("amount_nano", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["budget_id"], ["budget.id"], name=op.f("fk_budget_lease_budget_id_budget")),
        sa.PrimaryKeyConstraint("replica_id", "budget_id", "window_us", name=op.f("pk_budget_lease")),
    )
    with op.batch_alter_table("budget_lease") as batch:
        batch.create_index("ix_budget_lease_window", ["budget_id", "window_us"], unique=False)


def downgrade() -> None:
    op.drop_table("budget_lease")
    op.drop_table("replica")
