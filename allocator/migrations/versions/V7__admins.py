"""admins"""

from allocator.migrations import run_script

revision = "7"
down_revision = "6"


def upgrade() -> None:
    run_script("V7__admins.sql")


def downgrade() -> None:
    run_script("V7__admins.down.sql")
