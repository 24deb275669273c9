"""The bench still measures; what it measures depends on the machine and is no test."""

import json
import subprocess
import sys
from pathlib import Path

SMALL = ("--quick", "--clients=4", "--rate=10", "--seconds=1", "--size=20", "--size=200", "--vms=10")


def test_a_short_run_delivers_every_command_once_and_keeps_its_figures(tmp_path: Path) -> None:
    written, picture = tmp_path / "figures.json", tmp_path / "figures.svg"

    command = [sys.executable, "-m", "tests.bench", *SMALL, f"--json={written}", f"--plot={picture}"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=90)

    assert ran.returncode == 0, ran.stderr
    sections = json.loads(written.read_text())["sections"]
    steady, burst, flooded = sections[1:4]
    for section in (steady, burst):
        counted = {value["what"]: value["ours"] for value in section["values"]}
        assert counted["requests"] > 0
        assert counted["commands lost"] == counted["commands run twice"] == counted["machines given to two people"] == 0
    assert all(row["ours"] for row in flooded["rows"])
    assert all(row["ours"] and row["beside"] for row in sections[0]["rows"])
    heard = {value["what"]: value["ours"] for section in sections for value in section["values"]}
    assert heard["requests of which no machine heard"] == 0
    assert "</svg>" in picture.read_text()
