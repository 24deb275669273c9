"""by hand"""

from allocator.migrations import run_script

revision = "2"
down_revision = "1"


def upgrade() -> None:
    run_script("V2__by_hand.sql")


def downgrade() -> None:
    run_script("V2__by_hand.down.sql")
