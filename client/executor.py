"""Who runs people's commands in the session and cleans up after them: this process, or the helper that is root."""

from dataclasses import dataclass
from typing import Protocol

from client import runner
from client.command import Command
from client.processes import kill_remains
from client.runner import Finished, Programs, Running
from client.session import Session, SessionNotClean, WipeFailed


class Started(Protocol):
    """A command that has started. Await `wait`, and `end` when its lease ends; either may come first."""

    async def wait(self) -> Finished:
        """How it ended. Raises ProcessesRemain."""

    async def end(self) -> None:
        """End its process group; the rest is for `kill` or `wipe`. May be repeated. Raises ProcessesRemain."""


class Executor(Protocol):
    """The session of one machine, as the agent needs it. Everything but `start` may be repeated."""

    async def check(self) -> None:
        """Raises WipeFailed when no lease could be served here."""

    async def start(self, command: Command, *, name: str, limit_seconds: float) -> Started:
        """Start the command in a session that is empty. Raises CannotStart, or WipeFailed when it cannot be emptied."""

    async def kill(self) -> None:
        """Kill all of the session's processes. Raises ProcessesRemain."""

    async def wipe(self) -> None:
        """Kill all of the session's processes and remove all of its files, durably. Raises WipeFailed."""


@dataclass(frozen=True, slots=True)
class OwnExecutor:
    """This process does it all: as root for the session's account, or as whoever it is."""

    session: Session
    programs: Programs

    async def check(self) -> None:
        """There is nothing between this process and the session."""

    async def start(self, command: Command, *, name: str, limit_seconds: float) -> Running:
        await self._open()
        return await runner.start(command, self.session, self.programs, name=name, limit_seconds=limit_seconds)

    async def kill(self) -> None:
        await kill_remains(self.session.belongings)

    async def wipe(self) -> None:
        await self.session.wipe()

    async def _open(self) -> None:
        try:
            self.session.open()
        except SessionNotClean:
            await self.session.wipe()
            self.session.open()
        except OSError as error:
            raise WipeFailed(f"The session's directory cannot be made: {error.strerror}") from error
