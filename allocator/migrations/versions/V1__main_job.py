"""main job"""

from allocator.migrations import drop_functions, run_script

revision = "1"
down_revision = None


def upgrade() -> None:
    run_script("V1__main_job.sql")


def downgrade() -> None:
    run_script("V1__main_job.down.sql")
    drop_functions()
