"""The command `lablink` before it knows what is asked of it."""

import subprocess
import sys
from pathlib import Path

START = "import sys; sys.path.insert(0, sys.argv.pop()); from allocator.cli import main; main()"


def test_ctrl_c_is_quiet_from_the_first_import_on(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt\n")

    done = subprocess.run([sys.executable, "-c", START, str(tmp_path)], capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_nothing_that_takes_time_is_imported_before_that() -> None:
    program = "import sys; before = set(sys.modules); import allocator.cli; print(*set(sys.modules) - before)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)

    assert set(done.stdout.split()) == {"allocator", "allocator.cli"}
