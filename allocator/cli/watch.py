"""`lablink vms watch`: the machines as they change."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.text import Text

from allocator.cli import admin, output
from client.network import Connection

Change = dict[str, Any]


@dataclass
class Watch:
    """What was shown last, and how: a live table on a terminal, else a line for each change."""

    columns: Mapping[str, str]
    empty: str
    as_json: bool
    shown: dict[str, Change] = field(default_factory=dict)
    live: Live | None = None

    async def look(self, connection: Connection) -> None:
        """Show what the machines are now."""
        if sys.stdout.isatty() and not self.as_json:
            return await self._redraw(connection)
        vms = {vm["hostname"]: _telling(vm) for vm in await admin.vms(connection)}
        gone = {name: {"hostname": name, "status": "gone"} for name in self.shown.keys() - vms.keys()}
        changes = [vm for name, vm in vms.items() if self.shown.get(name) != vm]
        self._print([*changes, *gone.values()])
        self.shown = vms

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self.live is not None:
            self.live.stop()

    async def _redraw(self, connection: Connection) -> None:
        rows, now = await admin.vms(connection), await admin.clock(connection)
        if self.live is None:
            self.live = Live(console=output.console(), auto_refresh=False)
            self.live.start()
        table = output.table(rows, self.columns, now=now) if rows else Text(self.empty)
        self.live.update(Group(table, Text("Ctrl-C ends this.", style="dim")), refresh=True)

    def _print(self, changes: list[Change]) -> None:
        if self.as_json:
            return output.print_json_lines(changes)
        for change in changes:
            told = {**change, "epoch": f"epoch {change['epoch']}"}
            output.say("  ".join(str(value) for value in told.values() if value is not None))


def _telling(vm: admin.Row) -> Change:
    """What makes a change worth telling; that a machine was seen again is not one."""
    return {key: vm[key] for key in ("hostname", "status", "email", "lease_status", "reason", "lease_id", "epoch")}
