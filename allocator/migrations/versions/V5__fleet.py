"""fleet"""

from allocator.migrations import run_script

revision = "5"
down_revision = "4"


def upgrade() -> None:
    run_script("V5__fleet.sql")


def downgrade() -> None:
    run_script("V5__fleet.down.sql")
