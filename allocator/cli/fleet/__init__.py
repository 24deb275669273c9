"""`lablink fleet`: machines in the cloud, made and removed by Terraform without taking anybody's."""

import typer

from allocator.cli.fleet import changes, looks
from allocator.cli.options import CONTEXT

app = typer.Typer(help="Machines in the cloud: plan, make, remove, replace them; what they cost.", **CONTEXT)
app.command("status")(looks.status)
app.command("plan")(changes.plan)
app.command("apply")(changes.apply)
app.command("grow")(changes.grow)
app.command("shrink")(changes.shrink)
app.command("replace")(changes.replace)
app.command("destroy")(changes.destroy)
app.command("cost")(looks.cost)
app.command("aliens")(looks.aliens)
app.command("mend")(looks.mend)
app.command("unlock")(changes.unlock)
