"""The bench still measures; what it measures depends on the machine and is no test."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.scenarios import SCENARIOS
from tests.bench.scenarios.yardsticks import MISSING, PYTHON

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SMALL = ("--quick", "--within=860", "--vms=10", "--clients=4", "--rate=10", "--seconds=1", "--size=20", "--size=200")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_short_run_measures_all_of_a_scenario_and_keeps_every_promise(scenario: str, tmp_path: Path) -> None:
    if scenario == "yardsticks" and not PYTHON.exists():
        pytest.skip(MISSING)
    written = tmp_path / "figures.json"

    command = [sys.executable, "-m", "tests.bench", scenario, *SMALL, f"--json={written}"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=880)

    assert ran.returncode == 0, ran.stderr
    sections = json.loads(written.read_text())["sections"]
    assert all(section["rows"] or section["values"] for section in sections)
    values = [value for section in sections for value in section["values"]]
    assert all(row["ours"] for section in sections for row in section["rows"])
    assert all(value["ours"] is not None for value in values)
    assert all(value["ours"] > 0 for value in values if value["what"] == "requests")
    assert all(value["ours"] == 0 for value in values if value["aim"] == 0)


def test_a_run_that_does_not_end_in_time_says_where_it_was_and_what_helps() -> None:
    command = [sys.executable, "-m", "tests.bench", "bulk", "claim", *SMALL, "--within=1"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=880)

    assert ran.returncode == 1
    assert "measure claim alone, or give it longer: --within" in ran.stderr
