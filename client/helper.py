"""The helper: the one part of a machine's client that is root. It starts commands, cleans up, and looks how things are.

systemd starts one for each connection to its socket, as standard input, and ends all that it left when it ends. Only
the client's account is answered. Nothing is believed of what that says: the command is built anew from its fields by
the grammar that the allocator read them with, and as whom, where and in what environment it runs is root's to say.
One at a time changes the session: that of a client that died goes on, and knows nothing of the next lease.
"""

import argparse
import asyncio
import fcntl
import json
import logging
import os
import pwd
import re
import socket
import struct
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from client.command import JOB_BYTES, Command, CommandRefused, from_parts
from client.executor import OwnExecutor, own_executor
from client.logs import log_to_stderr
from client.processes import ProcessesRemain
from client.runner import CannotStart, Finished, Running
from client.session import SessionError, WipeFailed
from client.settings import SettingsError, StateDir, load_settings

REQUEST_BYTES = 6 * JOB_BYTES + 8192
"""Bytes of the longest request: the longest command that is accepted, each of its bytes escaped."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}")
_LIMIT_SECONDS = 86_400.0
_PATIENCE_SECONDS = 10.0
_TURN_SECONDS = 0.05
_TURN_LIMIT_SECONDS = 120.0
"""Longer than a wipe takes that gets on. A client that waits says no hello; what hangs is to be an admin's."""
_STILL_AT_IT = (
    "An earlier helper is still at work on the session, maybe on a file system that hangs. "
    "See what it does: systemctl status 'lablink-helper@*'"
)
_CREDENTIALS = struct.Struct("3i")  # struct ucred: process, user, group

log = logging.getLogger("lablink.helper")


class NotForYou(Exception):
    """Somebody else than the client's account connected."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what is asked over standard input, which systemd has connected to the client."""
    log_to_stderr()
    parser = argparse.ArgumentParser(
        prog="client.helper", description="Started by systemd: see lablink-client install."
    )
    for name in ("--settings", "--state-dir"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--client-user", required=True)
    given = parser.parse_args(arguments)
    try:
        client_uid, connection = _uid_of(given.client_user), socket.socket(fileno=os.dup(0))
        executor = own_executor(load_settings(given.settings, {}), StateDir(given.state_dir))
        asyncio.run(attend(connection, client_uid, executor))
    except (NotForYou, SettingsError, SessionError, OSError) as error:
        log.error("ended", extra={"reason": str(error)})
        sys.exit(1)


def _uid_of(name: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise SettingsError(f"There is no account {name!r}, whom this helper answers.") from None


async def attend(connection: socket.socket, client_uid: int, executor: OwnExecutor) -> None:
    """Do the one thing that is asked over `connection`, and answer it. Raises NotForYou, TimeoutError."""
    if (uid := peer_of(connection)) != client_uid:
        raise NotForYou(f"User {uid} asked, and only user {client_uid} is answered.")
    reader, writer = await asyncio.open_unix_connection(sock=connection, limit=REQUEST_BYTES)
    try:
        await _Errand(reader, writer, executor).run()
    except ConnectionError:
        log.warning("left", extra={"reason": "the client is gone"})
    finally:
        writer.close()


def peer_of(connection: socket.socket) -> int:
    """Whose process connected, as the kernel knows it."""
    given = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(given)[1])


class _Errand:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, executor: OwnExecutor) -> None:
        self._reader = reader
        self._writer = writer
        self._executor = executor

    async def run(self) -> None:
        try:
            request = await self._request()
            if request.get("do") == "start":
                await self._start(request)
            else:
                await self._say({"done": True} | await self._do(request))
        except (WipeFailed, ProcessesRemain, CommandRefused) as error:
            await self._say({"trouble": str(error)})

    async def _request(self) -> dict[str, Any]:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                request = json.loads(await self._reader.readline())
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict):
            raise CommandRefused("That is no request to the helper.")
        return request

    async def _do(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what is done in one step. Returns what it found, where that was asked."""
        match request.get("do"):
            case "check":
                await self._executor.check(lent=request.get("lent") is True)
            case "kill":
                async with self._alone():
                    await self._executor.kill()
            case "wipe":
                async with self._alone(however_long=True):  # as a wipe may take
                    await self._executor.wipe()
            case "runs":
                return {"runs": await self._executor.runs()}
            case "usage":
                usage = await self._executor.usage()
                return {"usage": asdict(usage) if usage else None}
            case _:
                raise CommandRefused("The helper does not know how to do that: install client and helper together.")
        return {}

    async def _start(self, request: dict[str, Any]) -> None:
        try:
            command, name, limit_seconds = _checked(request)
            async with self._alone():
                running = await self._executor.start(command, name=name, limit_seconds=limit_seconds)
        except CommandRefused as refused:
            await self._say(_finished(Finished(None, str(refused), failure="refused")))
            return
        except CannotStart as error:
            await self._say(_finished(error.finished))
            return
        log.info("started", extra={"kind": command.kind})
        try:
            await self._say({"started": True})
            await self._tell_end(running)
        finally:
            await running.end()
        await self._say({"done": True})

    @asynccontextmanager
    async def _alone(self, *, however_long: bool = False) -> AsyncIterator[None]:
        """While no other helper changes the session. Raises WipeFailed where another does for too long.

        Raises ConnectionError when the client has left before that.
        """
        place = os.open(self._executor.session.directory.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            await self._turn(place, None if however_long else _TURN_LIMIT_SECONDS)
            yield
        finally:
            os.close(place)

    async def _turn(self, place: int, limit_seconds: float | None) -> None:
        try:
            async with asyncio.timeout(limit_seconds):
                while not (is_left := self._reader.at_eof()) and not _locked(place):  # noqa: ASYNC110  # nothing announces it
                    await asyncio.sleep(_TURN_SECONDS)
        except TimeoutError:
            raise WipeFailed(_STILL_AT_IT) from None
        if is_left:
            raise ConnectionAbortedError

    async def _tell_end(self, running: Running) -> None:
        """Say how the command ended, when it does; return once the client has left or says anything more."""
        ending, leaving = asyncio.ensure_future(running.wait()), asyncio.ensure_future(self._reader.read(1))
        await asyncio.wait([ending, leaving], return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            await self._say(_finished(ending.result()))
            await leaving
            return
        ending.cancel()
        await asyncio.wait([ending])
        await running.end()
        await self._say(_finished(await running.wait()))

    async def _say(self, answer: dict[str, Any]) -> None:
        self._writer.write(json.dumps(answer).encode() + b"\n")
        await self._writer.drain()


def _checked(request: dict[str, Any]) -> tuple[Command, str, float]:
    """The command of a request, the machine's name and the time limit. Raises CommandRefused."""
    public, secrets = request.get("command"), request.get("secrets")
    name, limit = request.get("name"), request.get("limit_seconds")
    if not isinstance(public, dict) or not isinstance(secrets, dict | None):
        raise CommandRefused("The request has no command.")
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise CommandRefused("The machine's name is not one.")
    if not isinstance(limit, int | float) or not 0 < limit <= _LIMIT_SECONDS:
        raise CommandRefused("The time limit is not one.")
    return from_parts(str(request.get("kind")), public, secrets), name, float(limit)


def _locked(place: int) -> bool:
    """Whether the lock of an open directory is this process's now; the kernel lets go of it when that is closed."""
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _finished(finished: Finished) -> dict[str, Any]:
    return {"finished": asdict(finished)}


if __name__ == "__main__":
    main()
