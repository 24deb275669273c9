"""`lablink groups code`: join codes, which are shown once."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from allocator.cli.options import DataDir, Json, Settings, run_on_database

if TYPE_CHECKING:
    from client.network import Connection

Group = Annotated[str, typer.Argument(metavar="GROUP", help="A group's name: see `lablink groups list`.")]
DAYS = 7
"""How long a join code is good that nobody gave an end."""

MaxPeople = Annotated[int | None, typer.Option(min=1, max=1_000_000, help="For how many people. Left out: any number.")]
Opens = Annotated[datetime | None, typer.Option(help="From when on, by this computer's clock. Left out: now.")]
Closes = Annotated[datetime | None, typer.Option(help=f"Until when. Left out: {DAYS} days after it opens.")]
Revoke = Annotated[bool, typer.Option("--revoke", help="Make the group's codes worth nothing; members stay.")]


def code(
    name: Group,
    max_people: MaxPeople = None,
    opens: Opens = None,
    closes: Closes = None,
    revoke: Revoke = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Make a join code: whoever asks with it becomes a member. It is shown this once: only its hash is kept.

    Examples:

    - `lablink groups code course --max-people 40 --opens 2027-03-01T08:30 --closes 2027-03-05`
    - `lablink groups code course --revoke`
    """
    from allocator.cli.database import public_url

    url = public_url(data_dir, settings or [])

    async def work(connection: "Connection") -> None:
        if revoke:
            return await _revoke(connection, name, as_json)
        await _open(connection, name, url, max_people, opens, closes, as_json)

    run_on_database(work, data_dir, settings)


async def _revoke(connection: "Connection", name: str, as_json: bool) -> None:
    from allocator.cli import group_questions, output

    revoked = await group_questions.revoke_join_codes(connection, name)
    sentence = f"Nobody joins {name} by code any more: {revoked} revoked."
    output.show_change({"name": name, "revoked": revoked}, sentence, as_json=as_json)


async def _open(
    connection: "Connection",
    name: str,
    url: str,
    max_people: int | None,
    opens: datetime | None,
    closes: datetime | None,
    as_json: bool,
) -> None:
    from allocator.cli import admin, group_questions, output
    from allocator.cli.failures import Misused

    begin = opens.astimezone() if opens else await admin.clock(connection)
    end = closes.astimezone() if closes else begin + timedelta(days=DAYS)
    if end <= begin:
        raise Misused("A code opens before it closes: give a later --closes.")
    made = await group_questions.add_join_code(connection, name, url, max_people, begin, end)
    output.show_change(made, f"{made['code']}\n{made['link']}", as_json=as_json)
    if not as_json:
        good = f"Good from {begin.astimezone():%Y-%m-%d %H:%M} to {end.astimezone():%Y-%m-%d %H:%M %Z}"
        output.tell(f"{good}{f', for {people(max_people)}' if max_people else ''}, and not shown again.")


def people(number: int) -> str:
    """So many people, in words."""
    return "1 person" if number == 1 else f"{number} people"
