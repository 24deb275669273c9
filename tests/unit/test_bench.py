"""What the bench makes of its numbers; what it measures is no test."""

import io
import json
from pathlib import Path

from rich.console import Console

from tests.bench.__main__ import chosen_of
from tests.bench.compare import compare
from tests.bench.figures import Row, Section, Value, figure
from tests.bench.plot import plot
from tests.bench.scenarios import SCENARIOS
from tests.bench.show import OTHERS, aims, document, show

MS = 1_000_000


def _section(claim_ms: int, rate: float) -> Section:
    row = Row("a claim", figure([claim_ms * MS] * 8), figure([2 * MS] * 8), aim=(1.0, 5.0))
    return Section("Claims", rows=[row], values=[Value("claims", rate, unit="/s", aim=15_000, more=True)])


def _compared(tmp_path: Path, then: Section, now: Section, others: float = 0.0) -> list[str]:
    old, told = tmp_path / "old.json", io.StringIO()
    old.write_text(json.dumps(document({OTHERS: others}, [then])))
    compare(Console(file=told, width=100), old, document({}, [now]))
    return told.getvalue().splitlines()


def test_aims_are_met_or_missed_in_the_direction_that_is_better() -> None:
    assert [aim.met for aim in aims([_section(1, 20_000)])] == [True, True]
    assert [aim.met for aim in aims([_section(2, 10_000)])] == [False, False]


def test_what_is_slower_than_in_an_earlier_run_is_said_to_be_worse(tmp_path: Path) -> None:
    lines = _compared(tmp_path, _section(1, 20_000), _section(2, 10_000))

    assert [line.split()[-1] for line in lines if "2.00×" in line or "0.50×" in line] == ["worse"] * 3


def test_what_differs_by_less_than_the_noise_is_not_judged(tmp_path: Path) -> None:
    lines = _compared(tmp_path, _section(1, 20_000), _section(1, 19_000))

    assert not any("worse" in line or "better" in line for line in lines)


def test_what_differs_while_other_programs_took_the_machine_is_not_judged(tmp_path: Path) -> None:
    lines = _compared(tmp_path, _section(1, 20_000), _section(2, 10_000), others=0.9)

    assert not any("worse" in line or "better" in line for line in lines)


def test_a_sample_whose_parts_differ_is_noisy() -> None:
    calm, drifting = figure([MS] * 8), figure([MS] * 4 + [3 * MS] * 4)

    assert calm and calm.noise == (0.15, 0.15)
    assert drifting and drifting.noise == (2.0, 2.0)


def test_what_is_to_happen_never_is_promised_in_that_word() -> None:
    wanted = Section("Leases", values=[Value("given twice", 1, aim=0), Value("waited", 1, unit="s", aim=2)])

    assert [aim.promised for aim in aims([wanted])] == ["never", "≤ 2 s"]


def test_every_kind_of_number_fits_into_eighty_columns_and_a_picture(tmp_path: Path) -> None:
    told, picture = io.StringIO(), tmp_path / "run.svg"
    sections = [_section(1, 20_000), Section("Nothing measured", values=[Value("unknown", None, aim=0)])]

    show(Console(file=told, width=80), {"cores": 2}, sections)
    plot(picture, sections)

    assert max(map(len, told.getvalue().splitlines())) <= 80
    assert "</svg>" in picture.read_text()


def test_a_quick_run_leaves_out_what_it_has_no_time_for_unless_that_is_named() -> None:
    assert SCENARIOS.keys() - chosen_of(None, quick=True) == {"waiting"}
    assert list(chosen_of(None, quick=False)) == list(SCENARIOS)
    assert list(chosen_of(["waiting", "claim"], quick=True)) == ["claim", "waiting"]
