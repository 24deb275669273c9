"""Lists of people as spreadsheets write them."""

from io import StringIO

import pytest

from allocator.cli.failures import CommandFailed
from allocator.cli.lists import read_list
from allocator.rosters import read_roster, written

ADA, BOB = "ada@example.org", "bob@example.org"


@pytest.mark.parametrize(
    "text",
    [
        f"email\n{ADA}\n{BOB}\n",
        f"Name;E-Mail\nAda;{ADA}\nBob;{BOB}\n",
        f"\ufeffName\tEmail address\r\n\r\nAda\t{ADA}\r\nBob\t {BOB} \r\n,\r\n"[:-3],
        f"{ADA}\n{BOB}",
        f'who,name\n{ADA},"Ada,\nCountess"\n{BOB},Bob\n',
        f"{ADA}\nADA@example.ORG\n{BOB}\n",
    ],
    ids=["header", "semicolons", "excel", "no header", "first column", "twice"],
)
def test_the_addresses_are_found_however_the_list_was_written(text: str) -> None:
    roster = read_roster(text)

    assert (roster.emails, roster.bad) == ([ADA, BOB], [])


def test_a_line_that_names_nobody_is_told_by_its_number() -> None:
    roster = read_roster(f"name,email\nAda,{ADA}\nBob,bob@home\n\nCyd\n")

    assert roster.emails == [ADA]
    assert [bad.line for bad in roster.bad] == [3, 5]
    assert "domain" in roster.bad[0].why and "missing" in roster.bad[1].why


@pytest.mark.parametrize("text", ["", "\n\n", "email\n"])
def test_a_list_of_nobody_names_nobody(text: str) -> None:
    assert read_roster(text).emails == [] and read_roster(text).bad == []


@pytest.mark.parametrize("email", [ADA, "=cmd|'/Ccalc'!A@example.org", "+1@example.org", "-a@x.org", "'=a@x.org"])
def test_a_list_comes_back_as_it_was_and_no_spreadsheet_finds_a_formula_in_it(email: str) -> None:
    text = written([{"email": email, "group": "course"}])

    assert not text.splitlines()[1].startswith(("=", "+", "-"))
    assert read_roster(text).emails == [email]


def test_a_quotation_mark_that_nothing_closes_in_a_long_list_is_told() -> None:
    with pytest.raises(CommandFailed, match="quotation mark"):
        read_list(StringIO(f'email\n"{ADA}\n' + f"{BOB}\n" * 10_000))
