"""How the command line says things."""

import io
from datetime import UTC, datetime, timedelta
from importlib import import_module

import pytest
from rich.console import Console

from allocator.cli import output
from allocator.cli.failures import EXPECTED
from allocator.upkeep.programs import environment

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "just now"),
        (-0.4, "just now"),
        (1, "1 s ago"),
        (59.9, "59 s ago"),
        (60, "1 min ago"),
        (3599, "59 min ago"),
        (7200, "2 h ago"),
        (-28_799, "in 7 h 59 min"),
        (86_400, "1 day ago"),
        (400 * 86_400, "400 days ago"),
        (-90, "in 1 min"),
    ],
)
def test_a_time_is_told_as_seen_from_now(seconds: float, words: str) -> None:
    assert output.ago(NOW - timedelta(seconds=seconds), NOW) == words


def test_a_table_on_a_narrow_terminal_folds_and_cuts_nothing_off() -> None:
    email = "a-rather-long-name@department.university.example.org"
    narrow = Console(file=io.StringIO(), width=30, highlight=False)

    narrow.print(output.table([{"hostname": "vm-1", "email": email}], {"hostname": "VM", "email": "Person"}, now=NOW))

    shown = narrow.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in shown
    assert email in "".join(word for word in shown.split() if word not in ("VM", "Person", "vm-1"))


def test_a_table_keeps_its_columns_apart_where_characters_are_wide_and_values_fold() -> None:
    rows = [{"a": "猫猫", "b": "one two three four", "c": "x"}, {"a": "cat", "b": "five", "c": "a\tb"}]
    narrow = Console(file=io.StringIO(), width=18, highlight=False)

    narrow.print(output.table(rows, {"a": "A", "b": "B", "c": "C"}, now=NOW))

    lines = narrow.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.rstrip() for line in lines] == [
        "A     B        C",
        "猫猫  one two  x",
        "      three",
        "      four",
        "cat   five     a b",
    ]


def test_a_column_in_which_nothing_stands_is_left_out() -> None:
    made = output.table([{"a": 1, "b": None}, {"a": 2, "b": ""}], {"a": "A", "b": "B"}, now=NOW)

    assert made.titles == ["A"]


def test_text_that_looks_like_markup_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    output.say("[bold]not bold[/bold] :smile:")

    assert capsys.readouterr().out == "[bold]not bold[/bold] :smile:\n"


@pytest.mark.parametrize("unseen", ["\x1b", "\x07", "\x9b", "\u202e", "\u2067", "\u200f", "\u061c"])
def test_what_a_terminal_would_act_on_is_never_printed(capsys: pytest.CaptureFixture[str], unseen: str) -> None:
    output.say(f"a{unseen}b")
    output.console().print(output.table([{"a": f"a{unseen}b"}], {"a": "A"}, now=NOW))
    output.print_json({"a": f"a{unseen}b"})

    assert unseen not in capsys.readouterr().out


def test_a_second_line_makes_no_second_row(capsys: pytest.CaptureFixture[str]) -> None:
    output.console().print(output.table([{"a": "vm-1", "b": "smoke\nvm-2  fine"}], {"a": "A", "b": "B"}, now=NOW))

    assert len(capsys.readouterr().out.splitlines()) == 2


def test_json_has_times_in_iso_8601() -> None:
    assert output.dump({"at": NOW}) == '{"at": "2026-03-01T12:00:00+00:00"}'


def test_programs_of_postgresql_are_told_all_through_their_environment() -> None:
    told = environment("postgresql://lab%40link:s%2Fe@[::1]:5433/lablink_db?sslmode=verify-full&sslrootcert=/ca.pem")

    assert told == {
        "PGHOST": "::1",
        "PGPORT": "5433",
        "PGUSER": "lab@link",
        "PGPASSWORD": "s/e",
        "PGDATABASE": "lablink_db",
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": "/ca.pem",
    }


@pytest.mark.parametrize("name", EXPECTED)
def test_every_expected_failure_is_a_class_of_that_name(name: str) -> None:
    module, _, kind = name.rpartition(".")

    assert issubclass(getattr(import_module(module), kind), Exception)
    assert getattr(import_module(module), kind).__module__ == module
