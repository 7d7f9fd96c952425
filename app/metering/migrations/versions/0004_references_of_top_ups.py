"""references of top-ups, so that a retry moves no money twice"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("top_up") as batch:
        batch.add_column(sa.Column("reference_hash", sa.String(length=64), nullable=True))
        batch.create_unique_constraint(batch.f("uq_top_up_reference_hash"), ["reference_hash"])


def downgrade() -> None:
    with op.batch_alter_table("top_up") as batch:
        batch.drop_constraint("uq_top_up_reference_hash")
        batch.drop_column("reference_hash")
