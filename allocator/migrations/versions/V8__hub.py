"""hub"""

from allocator.migrations import run_script

revision = "8"
down_revision = "7"


def upgrade() -> None:
    run_script("V8__hub.sql")


def downgrade() -> None:
    run_script("V8__hub.down.sql")
