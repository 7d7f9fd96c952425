"""alerts, webhooks and their deliveries; queues of usage events; which pepper is used"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("tenant") as batch:
        batch.add_column(sa.Column("alert_percents", sa.JSON(), nullable=True))
    with op.batch_alter_table("budget_window") as batch:
        batch.add_column(sa.Column("alert_nano", sa.BigInteger(), server_default="0", nullable=True))
        batch.add_column(sa.Column("alert_from_nano", sa.BigInteger(), server_default="0", nullable=False))
    op.create_table(
        "budget_alert",
        sa.Column("budget_id", sa.String(length=40), nullable=False),
        sa.Column("window_us", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("limit_nano", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("reached", sa.String(length=10), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["budget_id"], ["budget.id"], name=op.f("fk_budget_alert_budget_id_budget")),
        sa.PrimaryKeyConstraint("budget_id", "window_us", "limit_nano", "reached", name=op.f("pk_budget_alert")),
    )
    op.create_table(
        "webhook",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant_id", sa.String(length=40), nullable=True),
        sa.Column("url", sa.String(length=2000), nullable=False),
        sa.Column("pepper_id", sa.String(length=16), nullable=False),
        sa.Column("secret_number", sa.Integer(), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_webhook_tenant_id_tenant")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook")),
    )
    op.create_table(
        "webhook_delivery",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("webhook_id", sa.String(length=40), nullable=False),
        sa.Column("tenant_id", sa.String(length=40), nullable=True),
        sa.Column("type", sa.String(length=60), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_us", sa.BigInteger(), nullable=False),
        sa.Column("lease_id", sa.String(length=40), nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("error", sa.String(length=200), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["webhook_id"], ["webhook.id"], name=op.f("fk_webhook_delivery_webhook_id_webhook")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_delivery")),
    )
    with op.batch_alter_table("webhook_delivery") as batch:
        batch.create_index("ix_webhook_delivery_due", ["state", "next_us"], unique=False)
    op.create_table(
        "usage_feed",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("seen_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_usage_feed")),
    )
    op.create_table(
        "usage_event",
        sa.Column("feed", sa.String(length=40), nullable=False),
        sa.Column("entry_id", sa.String(length=40), nullable=False),
        sa.Column("leased_until_us", sa.BigInteger(), nullable=False),
        sa.Column("lease_id", sa.String(length=40), nullable=True),
        sa.PrimaryKeyConstraint("feed", "entry_id", name=op.f("pk_usage_event")),
    )
    op.create_table(
        "pepper_use",
        sa.Column("pepper_id", sa.String(length=16), nullable=False),
        sa.Column("activated_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("pepper_id", name=op.f("pk_pepper_use")),
    )


def downgrade() -> None:
    for table in ("pepper_use", "usage_event", "usage_feed", "webhook_delivery", "webhook", "budget_alert"):
        op.drop_table(table)
    with op.batch_alter_table("budget_window") as batch:
        batch.drop_column("alert_from_nano")
        batch.drop_column("alert_nano")
    with op.batch_alter_table("tenant") as batch:
        batch.drop_column("alert_percents")
