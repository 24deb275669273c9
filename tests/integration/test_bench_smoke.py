"""The bench still measures; what it measures depends on the machine and is no test."""

import json
import subprocess
import sys
from pathlib import Path

SMALL = ("--quick", "--clients=4", "--rate=10", "--seconds=1", "--size=20", "--size=200")


def test_a_short_run_delivers_every_command_once_and_writes_its_figures(tmp_path: Path) -> None:
    written = tmp_path / "figures.json"

    ran = subprocess.run(
        [sys.executable, "-m", "tests.bench", *SMALL, f"--json={written}"], capture_output=True, text=True, timeout=90
    )

    assert ran.returncode == 0, ran.stderr
    steady, burst, flooded, claims, kept = json.loads(written.read_text())["sections"]
    for section in (steady, burst):
        counted = {count["what"]: count["ours"] for count in section["counts"]}
        assert counted["requests"] > 0
        assert counted["commands lost"] == counted["commands run twice"] == counted["machines given to two people"] == 0
    assert all(row["ours"] for row in flooded["rows"])
    assert all(row["ours"] and row["naive"] for row in claims["rows"])
    assert [count["what"].partition(" ")[0] for count in kept["counts"]] == ["backup", "backup", "UPDATE", "restore,"]
