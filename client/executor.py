"""Who runs people's commands in the session and cleans up after them: this process, or the helper that is root."""

import asyncio
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from client import runner
from client.checks import Checks
from client.command import Command
from client.processes import adopt_orphans, find_remains, kill_remains, limit_all_below
from client.runner import Finished, Programs, Running
from client.session import Account, AccountUnusable, Session, SessionNotClean, WipeFailed
from client.settings import Settings, StateDir
from client.usage import Usage, usage_of

log = logging.getLogger("lablink.client")


class Started(Protocol):
    """A command that has started. Await `wait`, and `end` when its lease ends; either may come first."""

    async def wait(self) -> Finished:
        """How it ended. Raises ProcessesRemain."""

    async def end(self) -> None:
        """End its process group; the rest is for `kill` or `wipe`. May be repeated. Raises ProcessesRemain."""


class Executor(Protocol):
    """The session of one machine, as the agent needs it. Everything but `start` may be repeated."""

    async def check(self, *, lent: bool = False) -> None:
        """Raises WipeFailed when no lease could be served here. While it is `lent`, the disk is not looked at."""

    async def usage(self) -> Usage | None:
        """What the session uses of the machine; None where nobody can say."""

    async def start(self, command: Command, *, name: str, limit_seconds: float) -> Started:
        """Start the command in a session that is empty. Raises CannotStart, or WipeFailed when it cannot be emptied."""

    async def runs(self) -> bool:
        """Whether any process of the session runs. Raises WipeFailed when nobody can say."""

    async def kill(self) -> None:
        """Kill all of the session's processes. Raises ProcessesRemain."""

    async def wipe(self) -> None:
        """Kill all of the session's processes and remove all of its files, durably. Raises WipeFailed."""


@dataclass(slots=True)
class OwnExecutor:
    """This process does it all: as root for the session's account, or as whoever it is."""

    session: Session
    programs: Programs
    checks: Checks | None = None
    _kills: int = field(default=0, init=False)
    _killing: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def check(self, *, lent: bool = False) -> None:
        """A check that was killed with all else below this process says nothing of the machine: it is made again."""
        trouble, kills = None, -1
        while self.checks and kills != self._kills:
            async with self._killing:
                kills = self._kills
            trouble = await asyncio.to_thread(self.checks.trouble, lent=lent)
            if trouble is None:
                return
        if trouble:
            raise WipeFailed(trouble)

    async def usage(self) -> Usage | None:
        return await asyncio.to_thread(usage_of, self.session)

    async def start(self, command: Command, *, name: str, limit_seconds: float) -> Running:
        await self._open()
        return await runner.start(command, self.session, self.programs, name=name, limit_seconds=limit_seconds)

    async def runs(self) -> bool:
        return bool(find_remains(self.session.belongings))

    async def kill(self) -> None:
        async with self._killing:
            self._kills += 1
            await kill_remains(self.session.belongings)

    async def wipe(self) -> None:
        async with self._killing:
            self._kills += 1
            await self.session.wipe()

    async def _open(self) -> None:
        try:
            self.session.open()
        except SessionNotClean:
            await self.wipe()
            self.session.open()
        except OSError as error:
            raise WipeFailed(f"The session's directory cannot be made: {error.strerror}") from error


def own_executor(settings: Settings, state: StateDir) -> OwnExecutor:
    """This process as the one that runs people's commands, and is the parent of all that they start.

    Raises AccountUnusable.
    """
    adopt_orphans()
    limit_all_below()
    session = Session(state.session, _account(settings.session_user, state.session))
    checks = Checks(state.root, settings.checks, settings.least_free_mb)
    return OwnExecutor(session, Programs(settings.start_host), checks)


def _account(name: str | None, place: Path) -> Account | None:
    """Whom people's commands run as; None for this process's own user, who is root only where `name` says so.

    Raises AccountUnusable.
    """
    if os.geteuid() != 0 or name not in (None, "root"):
        return Account.named(name, place) if name else None
    if name is None:
        raise AccountUnusable(
            "People's commands would run as root. Name an account that nothing else uses as session_user in "
            "settings.json, or root if that is meant (in a container that is thrown away, say)."
        )
    log.warning("commands run as root", extra={"reason": "session_user is root"})
    return None
