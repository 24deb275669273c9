"""safe place"""

from allocator.migrations import run_script

revision = "3"
down_revision = "2"


def upgrade() -> None:
    run_script("V3__safe_place.sql")


def downgrade() -> None:
    run_script("V3__safe_place.down.sql")
