"""What several commands about the fleet take."""

from typing import Annotated

import typer

Drain = Annotated[
    bool,
    typer.Option(
        "--drain", help="Wait for people who are on machines that go; those are lent to nobody else meanwhile."
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Pool = Annotated[str | None, typer.Option("--pool", help="The kind of machine. Left out: any.")]
