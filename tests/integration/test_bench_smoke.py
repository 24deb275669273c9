"""The bench still measures; what it measures depends on the machine and is no test."""

import json
import subprocess
import sys
from pathlib import Path

SMALL = ("--quick", "--clients=4", "--rate=10", "--seconds=1", "--size=20", "--size=200")


def test_a_short_run_delivers_every_command_once_and_keeps_its_figures(tmp_path: Path) -> None:
    written, picture = tmp_path / "figures.json", tmp_path / "figures.svg"

    command = [sys.executable, "-m", "tests.bench", *SMALL, f"--json={written}", f"--plot={picture}"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=90)

    assert ran.returncode == 0, ran.stderr
    sections = json.loads(written.read_text())["sections"]
    values = [value for section in sections for value in section["values"]]
    assert all(row["ours"] for section in sections for row in section["rows"])
    assert all(value["ours"] is not None for value in values)
    assert all(value["ours"] > 0 for value in values if value["what"] == "requests")
    assert all(value["ours"] == 0 for value in values if value["aim"] == 0)
    assert "</svg>" in picture.read_text()
