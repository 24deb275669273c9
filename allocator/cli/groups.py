"""`lablink groups`: who belongs together, which pools they may use, and how they come in."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from allocator.cli.group_codes import Group, code
from allocator.cli.group_codes import people as people_in_words
from allocator.cli.lists import bad_lines, checked, read_list, refuse
from allocator.cli.options import CONTEXT, DataDir, Json, Settings, run_on_database

if TYPE_CHECKING:
    from allocator.cli.group_questions import Limit
    from client.network import Connection

app = typer.Typer(help="Groups of people: rosters, join codes, and their shares in pools.", **CONTEXT)
app.command("code")(code)

Emails = Annotated[list[str] | None, typer.Argument(metavar="[E-MAIL]...", help="People, by their e-mail addresses.")]
MaxLive = Annotated[
    int | None,
    typer.Option(min=0, max=1_000_000, help="How many machines they may have at a time. Left out: it stays as it is."),
]
NoLimit = Annotated[bool, typer.Option("--no-limit", help="They may have as many as there are.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a whole group goes.")]
File = Annotated[
    typer.FileText,
    typer.Argument(encoding="utf-8-sig", metavar="FILE", help="A list as CSV; - reads standard input."),
]
Replace = Annotated[bool, typer.Option("--replace", help="Whoever is not on the list leaves the group.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Take the good lines although there are bad ones.")]
New = Annotated[bool, typer.Option("--new", help="Make the group as well, if it is not there.")]

COLUMNS = {
    "name": "Group",
    "people": "People",
    "machines": "Machines",
    "max_live": "At most",
    "waiting": "Waiting",
    "pools": "Pools",
    "codes": "Join codes",
}
PEOPLE = {"email": "Person", "joined_at": "Since", "join_code": "By code", "status": "Lease", "hostname": "VM"}
CODES = {"id": "Code", "opens_at": "Opens", "closes_at": "Closes", "people": "Came", "max_people": "At most"}
NONE = "There are no groups: whoever asks is served in turn. Make one: lablink groups add NAME"
NOBODY = (
    "Nobody is in it. Add people: lablink groups import GROUP people.csv, or let them join: lablink groups code GROUP"
)


@app.command("list")
def list_groups(as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """Every group: how many people it has, how many machines they have, and which pools they may use.

    Example: `lablink groups list --json`
    """
    from allocator.cli import group_questions, output

    async def work(connection: "Connection") -> None:
        output.show_rows(await group_questions.groups(connection), COLUMNS, empty=NONE, as_json=as_json)

    run_on_database(work, data_dir, settings)


@app.command("show")
def show_group(name: Group, as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """One group: its people and what each has, and how far its join codes are used.

    Example: `lablink groups show course`
    """
    from allocator.cli import admin, group_questions, output

    async def work(connection: "Connection") -> None:
        group, now = await group_questions.group(connection, name), await admin.clock(connection)
        people, codes = await group_questions.people(connection, name), await group_questions.codes(connection, name)
        if as_json:
            return output.print_json(group | {"members": people, "join_codes": codes})
        output.console().print(output.facts(group, COLUMNS, now=now))
        output.say("")
        output.show_rows(codes, CODES, now=now, as_json=False)
        output.show_rows(people, PEOPLE, now=now, empty=NOBODY, as_json=False)

    run_on_database(work, data_dir, settings)


@app.command("add")
def add(
    name: Group,
    emails: Emails = None,
    max_live: MaxLive = None,
    no_limit: NoLimit = False,
    new: New = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Make a group, or add people to one that is there; who is in another group moves.

    Examples:

    - `lablink groups add course --max-live 40`
    - `lablink groups add course ada@example.org bob@example.org`
    """
    from allocator.cli import group_questions, output

    people, limit = checked(emails or []), _limit(max_live, no_limit)

    async def work(connection: "Connection") -> None:
        done = await group_questions.add(connection, name, people, limit, make=new or not people)
        sentence = _sentence(name, done) if people else f"There is a group {name}."
        output.show_change({"name": name, **done}, sentence, as_json=as_json)

    run_on_database(work, data_dir, settings)


@app.command("remove")
def remove(
    name: Group,
    emails: Emails = None,
    yes: Yes = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Take people out of a group; without any, remove the group. Whoever has a machine keeps it.

    Examples:

    - `lablink groups remove course bob@example.org`
    - `lablink groups remove course --yes`
    """
    from allocator.cli import group_questions, output

    async def work(connection: "Connection") -> None:
        if emails:
            removed = await group_questions.remove_members(connection, name, emails)
            sentence = f"{people_in_words(removed)} of {len(emails)} left {name}."
            return output.show_change({"name": name, "removed": removed}, sentence, as_json=as_json)
        group = await group_questions.group(connection, name)
        if not yes:
            output.ask(f"Remove {name} with its {people_in_words(group['people'])}, shares and join codes?")
        await group_questions.remove_group(connection, name)
        change = {"name": name, "removed": group["people"]}
        output.show_change(change, f"There is no group {name} any more.", as_json=as_json)

    run_on_database(work, data_dir, settings)


@app.command("share")
def share(
    name: Group,
    pool: Annotated[str, typer.Argument(metavar="POOL", help="The pool's name.")],
    max_live: MaxLive = None,
    no_limit: NoLimit = False,
    none: Annotated[bool, typer.Option("--none", help="Take the share away.")] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Let a group into a pool, and say how many machines of it they may have at a time.

    A pool for members only (`UPDATE pools SET access = 'members'`) lets nobody else in.

    Example: `lablink groups share course gpu --max-live 10`
    """
    from allocator.cli import group_questions, output

    limit = _limit(max_live, no_limit)

    async def work(connection: "Connection") -> None:
        if none:
            await group_questions.unshare(connection, name, pool)
        most = None if none else await group_questions.share(connection, name, pool, limit)
        change = {"name": name, "pool": pool, "share": not none, "max_live": most}
        output.show_change(change, _share_in_words(change), as_json=as_json)

    run_on_database(work, data_dir, settings)


def _share_in_words(change: Mapping[str, object]) -> str:
    if not change["share"]:
        return f"{change['name']} has no share in {change['pool']} any more."
    most = "" if change["max_live"] is None else f", at most {change['max_live']} at a time"
    return f"{change['name']} may use {change['pool']}{most}."


def _limit(max_live: int | None, no_limit: bool) -> "Limit | None":
    """The limit that is to be set; None: it stays as it is. Raises Misused."""
    from allocator.cli.failures import Misused
    from allocator.cli.group_questions import Limit

    if no_limit and max_live is not None:
        raise Misused("--max-live and --no-limit say opposite things. Give one of them.")
    return Limit(max_live) if no_limit or max_live is not None else None


@app.command("import")
def import_roster(
    name: Group,
    file: File,
    replace: Replace = False,
    skip_bad: SkipBad = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Add the people of a list to a group. The same list again changes nothing.

    The addresses are in the column that is called e-mail, else in the first. With a bad line nothing is done.

    Example: `lablink groups import course people.csv --replace`
    """
    from allocator.cli import group_questions, output

    roster = read_list(file)

    async def work(connection: "Connection") -> None:
        if roster.bad and not skip_bad:
            refuse(roster)
        done = await group_questions.add_members(connection, name, roster.emails, replace=replace)
        bad = [{"line": each.line, "why": each.why} for each in roster.bad]
        left_out = f" Left out: {bad_lines(roster)}" if bad else ""
        output.show_change({"name": name, **done, "bad": bad}, _sentence(name, done) + left_out, as_json=as_json)

    run_on_database(work, data_dir, settings)


@app.command("export")
def export(
    name: Annotated[str | None, typer.Argument(metavar="[GROUP]", help="Left out: all of them.")] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Print the people of a group, or of all, as CSV: the list that `import` takes.

    Example: `lablink groups export course > people.csv`
    """
    from allocator.cli import group_questions, output
    from allocator.rosters import written

    async def work(connection: "Connection") -> None:
        if name is not None:
            await group_questions.group(connection, name)
        rows = [
            {"email": row["email"], "group": row["group_name"]}
            for row in await group_questions.people(connection, name)
        ]
        if as_json:
            return output.print_json(rows)
        print(written(rows), end="")

    run_on_database(work, data_dir, settings)


def _sentence(name: str, done: Mapping[str, int]) -> str:
    """What became of a list, in a sentence."""
    told = {"added": "added", "moved": "moved from another group", "already": "already there", "removed": "taken out"}
    return (
        f"{name}: {', '.join(f'{done[key]} {words}' for key, words in told.items() if done[key]) or 'nothing changed'}."
    )
