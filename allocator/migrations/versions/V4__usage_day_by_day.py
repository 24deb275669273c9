"""usage day by day"""

from allocator.migrations import run_script

revision = "4"
down_revision = "3"


def upgrade() -> None:
    run_script("V4__usage_day_by_day.sql")


def downgrade() -> None:
    run_script("V4__usage_day_by_day.down.sql")
