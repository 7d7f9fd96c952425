"""limits and statuses of tenants and keys, acts of admin keys, the audit log"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")


def upgrade() -> None:
    op.add_column("tenant", sa.Column("status", sa.String(length=20), server_default="active", nullable=False))
    op.add_column("tenant", sa.Column("tier", sa.String(length=40), server_default="standard", nullable=False))
    op.add_column("api_key", sa.Column("acts", sa.JSON(), nullable=True))
    for table in ("tenant", "api_key"):
        for name in LIMITS:
            op.add_column(table, sa.Column(name, sa.BigInteger(), nullable=True))
    op.create_table(
        "audit_log",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("act", sa.String(length=60), nullable=False),
        sa.Column("target", sa.String(length=40), nullable=False),
        sa.Column("tenant_id", sa.String(length=40), nullable=True),
        sa.Column("details", sa.JSON(), nullable=True),
        sa.Column("salt", sa.LargeBinary(length=16), nullable=True),
        sa.Column("details_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("pepper_id", sa.String(length=16), nullable=False),
        sa.Column("chain", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_audit_log")),
    )
    op.create_index(op.f("ix_audit_log_tenant_id"), "audit_log", ["tenant_id"], unique=False)


def downgrade() -> None:
    op.drop_table("audit_log")
    for table in ("api_key", "tenant"):
        with op.batch_alter_table(table) as batch_op:
            for name in LIMITS:
                batch_op.drop_column(name)
    with op.batch_alter_table("api_key") as batch_op:
        batch_op.drop_column("acts")
    with op.batch_alter_table("tenant") as batch_op:
        batch_op.drop_column("tier")
        batch_op.drop_column("status")
