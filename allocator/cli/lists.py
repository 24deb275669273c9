"""Lists of people that somebody types or brings as a file; what is wrong with one is told line by line."""

import csv
from collections.abc import Sequence
from typing import TextIO

from allocator.checking import email_complaint, tidy_email
from allocator.cli.failures import CommandFailed, Misused
from allocator.rosters import Roster, read_roster


def checked(emails: Sequence[str]) -> Sequence[str]:
    """These addresses, tidy. Raises Misused for one that is none."""
    tidy = [tidy_email(email) for email in emails]
    for email in tidy:
        if complaint := email_complaint(email):
            raise Misused(f"{email!r} is nobody's address. {complaint}")
    return tidy


def read_list(file: TextIO) -> Roster:
    """The list in a file. Raises CommandFailed when it is not text in UTF-8, or no list."""
    try:
        return read_roster(file.read())
    except UnicodeDecodeError:
        raise CommandFailed("The list is not text in UTF-8. Save it as “CSV UTF-8”.") from None
    except csv.Error as error:
        raise CommandFailed(f"The list is no CSV ({error}). Look for a quotation mark that nothing closes.") from None


def refuse(roster: Roster) -> None:
    """Raises CommandFailed, with the lines that are bad."""
    advice = "Nothing was done. Mend them, or take the others: --skip-bad"
    raise CommandFailed(f"{bad_lines(roster)}\n{advice}")


def bad_lines(roster: Roster) -> str:
    """Each bad line by its number, and why it is bad."""
    return "\n".join(f"line {each.line}: {each.why}" for each in roster.bad)
