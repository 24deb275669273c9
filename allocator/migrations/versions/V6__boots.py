"""boots"""

from allocator.migrations import run_script

revision = "6"
down_revision = "5"


def upgrade() -> None:
    run_script("V6__boots.sql")


def downgrade() -> None:
    run_script("V6__boots.down.sql")
