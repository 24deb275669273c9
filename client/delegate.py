"""Has the helper do what this process may not: one connection to its socket for each errand, a line of JSON each way.

The connection of a command stays open as long as the command's lease: the helper ends the command when this side
closes, so that nothing outlives the client, however that died.
"""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.command import Command
from client.processes import ProcessesRemain
from client.runner import CannotStart, Finished
from client.session import WipeFailed
from client.usage import Usage

ANSWER_BYTES = 1_000_000
"""Longer than the longest line: 64 KiB of output, every byte of it escaped."""


class HelperAway(Exception):
    """The helper does not answer, or not sensibly."""


@dataclass(frozen=True, slots=True)
class Delegate:
    """An Executor whose work the helper at `path`, a Unix socket, does."""

    path: Path

    async def check(self, *, lent: bool = False) -> None:
        await self._do("check", lent=lent)

    async def usage(self) -> Usage | None:
        try:
            usage = (await self._do("usage")).get("usage")
        except WipeFailed:
            return None
        return Usage(**usage) if usage else None

    async def runs(self) -> bool:
        return bool((await self._do("runs")).get("runs"))

    async def kill(self) -> None:
        try:
            await self._do("kill")
        except WipeFailed as error:
            raise ProcessesRemain(str(error)) from error

    async def wipe(self) -> None:
        await self._do("wipe")

    async def start(self, command: Command, *, name: str, limit_seconds: float) -> "Delegated":
        fields = {"kind": command.kind, "command": command.public(), "secrets": command.secrets()}
        errand, answer = await self._begin({"do": "start", "name": name, "limit_seconds": limit_seconds} | fields)
        if "started" not in answer:
            errand.close()
            raise _not_started(answer)
        return Delegated(errand, asyncio.create_task(errand.answer()))

    async def _do(self, what: str, **how: bool) -> dict[str, Any]:
        errand, answer = await self._begin({"do": what, **how})
        errand.close()
        if "done" not in answer:
            raise WipeFailed(_trouble(answer))
        return answer

    async def _begin(self, request: dict[str, Any]) -> "tuple[Errand, dict[str, Any]]":
        """An errand and its first answer. Raises WipeFailed where there is none."""
        try:
            errand = await Errand.to(self.path, request)
            try:
                return errand, await errand.answer()
            except BaseException:
                errand.close()
                raise
        except HelperAway as error:
            raise WipeFailed(str(error)) from error


@dataclass(slots=True)
class Delegated:
    """A command that the helper has started; `ending` is the answer that says how it ended."""

    errand: "Errand"
    ending: asyncio.Task[dict[str, Any]]

    async def wait(self) -> Finished:
        """How it ended. A helper that is gone took the command with it. Raises ProcessesRemain."""
        try:
            answer = await asyncio.shield(self.ending)
        except HelperAway as error:
            return Finished(None, f"LabLink: {error}\n", failure="command-failed")
        if "finished" not in answer:
            raise ProcessesRemain(_trouble(answer))
        return Finished(**answer["finished"])

    async def end(self) -> None:
        """End its process group. May be repeated. Raises ProcessesRemain."""
        if self.errand.closed:
            return
        self.errand.leave()
        try:
            await asyncio.wait([self.ending])
            answer = self.ending.result()
            if "finished" in answer:
                answer = await self.errand.answer()
        except HelperAway:
            return  # and the command with it
        finally:
            self.errand.close()
        if "done" not in answer:
            raise ProcessesRemain(_trouble(answer))


@dataclass(slots=True)
class Errand:
    """A connection to the helper, over which one request goes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    closed: bool = False

    @classmethod
    async def to(cls, path: Path, request: dict[str, Any]) -> "Errand":
        """Ask for something. Raises HelperAway."""
        try:
            reader, writer = await asyncio.open_unix_connection(path, limit=ANSWER_BYTES)
            writer.write(json.dumps(request).encode() + b"\n")
            await writer.drain()
        except OSError as error:
            raise HelperAway(f"The helper at {path} does not answer: {error.strerror or error}.") from error
        return cls(reader, writer)

    async def answer(self) -> dict[str, Any]:
        """The next answer. Raises HelperAway."""
        try:
            given = json.loads(await self.reader.readline())
        except (OSError, ValueError) as error:
            raise HelperAway("The helper ended without an answer; its journal says why.") from error
        return given if isinstance(given, dict) else {}

    def leave(self) -> None:
        """Have the helper end what it does; its answers still come."""
        try:
            self.writer.write_eof()
        except OSError:
            self.writer.close()

    def close(self) -> None:
        """Let go of it. May be repeated."""
        self.closed = True
        self.writer.close()


def _not_started(answer: dict[str, Any]) -> Exception:
    """Why the helper started nothing: the session is not clean, or the command is not one that runs."""
    if "finished" in answer:
        return CannotStart(Finished(**answer["finished"]))
    return WipeFailed(_trouble(answer))


def _trouble(answer: dict[str, Any]) -> str:
    return str(answer.get("trouble", "The helper's answer is not one this client understands."))
