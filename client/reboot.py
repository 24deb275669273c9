"""A desktop that was ready when its machine rebooted: Google's service starts it again, and then its holder keeps it.

Whether it did is seen from the session's processes: nothing else on the machine runs as its account. A machine that is
still coming up is given time. Jobs need no such look: they end with the machine, and the journal knows which had begun.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from client.boot import uptime
from client.records import Entry, Key

PATIENCE_SECONDS = 120.0
"""How long after its kernel a machine has started all that it starts by itself."""


class Desktops:
    """What became of desktops that were ready in an earlier boot than `boot`. `runs` is an Executor's."""

    def __init__(
        self, runs: Callable[[], Awaitable[bool]], boot: str | None, since_boot: Callable[[], float] = uptime
    ) -> None:
        self._runs = runs
        self._boot = boot
        self._since_boot = since_boot
        self._back: Key | None = None

    async def after_reboot(self, entry: Entry) -> Entry | None:
        """The entry, if its desktop is there; as unknown, if it did not come back; None while it may come yet.

        Raises WipeFailed when nobody can say.
        """
        rebooted = None not in (entry.boot, self._boot) and entry.boot != self._boot
        if not rebooted or (entry.kind, entry.state) != ("desktop", "done") or entry.key == self._back:
            return entry
        if await self._runs():
            self._back = entry.key
            return entry
        return replace(entry, state="unknown", failure="unknown") if self._since_boot() > PATIENCE_SECONDS else None
