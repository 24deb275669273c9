"""care"""

from allocator.migrations import run_script

revision = "9"
down_revision = "8"


def upgrade() -> None:
    run_script("V9__care.sql")


def downgrade() -> None:
    run_script("V9__care.down.sql")
