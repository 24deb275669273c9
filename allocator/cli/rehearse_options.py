"""What `lablink rehearse` may be told of a workshop."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from allocator.rehearsal.plan import Plan

A_WEEK = 7 * 86_400
MACHINES, PEOPLE = "What goes wrong", "What people do"
GROUPS = "Over how many groups they are spread, the second half as large as the first, the third a third; 0: over none."


def time(words: str, panel: str | None = None) -> Any:
    """An option that is a time, with its unit."""
    return typer.Option(metavar="TIME", help=words, rich_help_panel=panel)


def share(panel: str, words: str) -> Any:
    """An option that is a share of a hundred."""
    return typer.Option(metavar="NUMBER", min=0, max=100, help=words, rich_help_panel=panel)


def rate(words: str) -> Any:
    """An option that is a rate an hour, of a hundred machines."""
    return typer.Option(metavar="NUMBER", min=0, max=1000, help=words, rich_help_panel=MACHINES)


@dataclass(frozen=True, slots=True)
class Workshop:
    """Who comes, what there is for them, and what goes wrong, as it is typed."""

    people: Annotated[int, typer.Option(min=1, max=5000, help="How many come.")] = 30
    machines: Annotated[int, typer.Option(min=1, max=2000, help="How many machines there are.")] = 30
    groups: Annotated[int, typer.Option(min=0, max=100, help=GROUPS)] = 0
    arrive: Annotated[str, time("Within what time they come: with s, m or h.")] = "60s"
    boot: Annotated[str, time("How long a machine boots; all begin with the first person.")] = "5m"
    use: Annotated[str, time("How long people use a machine: half of them longer.")] = "45m"
    lease: Annotated[str, time("After what time a lease ends by itself.")] = "8h"
    extend: Annotated[str, time("By how much it is made longer, twice at most.")] = "0s"
    deaths: Annotated[float, rate("Of 100 machines so many fall silent in an hour; each is back 10 minutes later.")] = 0
    reboots: Annotated[float, rate("Of 100 machines so many reboot in an hour.")] = 0
    failing: Annotated[float, share(MACHINES, "Of 100 commands so many fail.")] = 0
    slow: Annotated[float, share(MACHINES, "Of 100 machines so many are slow.")] = 0
    unhealthy: Annotated[float, share(MACHINES, "Of 100 machines so many break at one moment.")] = 0
    away: Annotated[str, time("How long the allocator is away meanwhile.", MACHINES)] = "0s"
    desktops: Annotated[float, share(PEOPLE, "Of 100 so many want a desktop; the others run a job.")] = 0
    lineless: Annotated[float, share(PEOPLE, "Of 100 who are asked for a line so many never bring it.")] = 0
    leaving: Annotated[float, share(PEOPLE, "Of 100 so many leave the queue when it takes too long.")] = 0
    forgetting: Annotated[float, share(PEOPLE, "Of 100 so many never hand back.")] = 0
    extending: Annotated[float, share(PEOPLE, "Of 100 so many make their lease longer if they are not done.")] = 0
    seed: Annotated[int, typer.Option(help="What chance does: the same with the same number.")] = 1

    def plan(self) -> "Plan":
        """The same in seconds. Raises Misused for a time that is none, or that no workshop takes."""
        from allocator.rehearsal.plan import Habits, Mishaps, Plan

        seconds = self._seconds
        return Plan(
            self.people, seconds("arrive"), self.machines, seconds("boot"), seconds("use"),
            int(seconds("lease", least=1)), int(seconds("extend")),
            mishaps=Mishaps(
                self.deaths, self.reboots, self.failing, self.slow, self.unhealthy, seconds("away")
            ),
            habits=Habits(self.desktops, self.lineless, self.leaving, self.forgetting, self.extending),
            groups=self.groups, seed=self.seed,
        )  # fmt: skip

    def _seconds(self, option: str, least: int = 0) -> float:
        from allocator.cli.failures import Misused
        from allocator.cli.units import seconds

        given = seconds(getattr(self, option))
        if not least <= given <= A_WEEK:
            raise Misused(f"--{option} is {least}s at least and 7d at most.")
        return given


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for each field of the dataclass that is its first parameter."""
    first, *others = signature(command).parameters.values()
    hints = get_type_hints(first.annotation, include_extras=True)
    ours = [
        Parameter(each.name, Parameter.KEYWORD_ONLY, default=each.default, annotation=hints[each.name])
        for each in fields(first.annotation)
    ]

    @wraps(command)
    def spread_out(**given: Any) -> None:
        command(first.annotation(**{each.name: given.pop(each.name) for each in ours}), **given)

    taken = [*ours, *(each.replace(kind=Parameter.KEYWORD_ONLY) for each in others)]
    vars(spread_out)["__signature__"] = Signature(taken)
    spread_out.__annotations__ = {each.name: each.annotation for each in taken}
    return spread_out
