"""scale"""

from allocator.migrations import run_script

revision = "8"
down_revision = "7"


def upgrade() -> None:
    run_script("V8__scale.sql")


def downgrade() -> None:
    run_script("V8__scale.down.sql")
