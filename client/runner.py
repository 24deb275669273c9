"""Runs a lease's command on the machine: an argument vector, never a shell, and nothing of it escapes the session.

Facts about `start-host` (Chromium, `remoting/host/setup/start_host_main.cc`): without `--pin` it prompts twice on
standard input and asks again for ever at end of file; it exits with 0 only after "Host started successfully."; it says
"OAuth error" when the code was used or is too old.

A desktop line without a PIN must work, since Google's page gives none. The allocator makes one that the
holder can be shown. Where nobody did that (an admin in psql), one is made up that nobody knows; the output says so.
"""

import asyncio
import errno
import os
import pwd
import secrets
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from client.command import Command, DesktopCommand, redact
from client.output import Output
from client.processes import (
    MARK,
    ProcessesRemain,
    adopts_orphans,
    kill_remains,
    reap_adopted,
    signal_group,
)
from client.session import Account, Session
from client.settings import START_HOST

SETPRIV = "/usr/bin/setpriv"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_GRACE_SECONDS = 2.0
_KILL_SECONDS = 15.0
_NO_PIN = (
    "LabLink: the line had no --pin, so the desktop has a PIN that nobody knows. To connect, ask again with a fresh "
    "line and add --pin= and 6 or more digits of your own to its end.\n"
)


@dataclass(frozen=True, slots=True)
class Programs:
    """Where the machine's programs are: the path of `start-host`, and the only PATH that commands see."""

    start_host: str = START_HOST
    path: str = PATH


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended. `output` is redacted and at most 64 KiB; `failure` is a `client.protocol.Failure`.

    `exit_code` is 128 + its number after a signal, as in a shell, and None when nothing could be started.
    """

    exit_code: int | None
    output: str
    failure: str | None = None


class CannotStart(Exception):
    """The command could not be started; `finished` is what to report."""

    def __init__(self, finished: Finished) -> None:
        super().__init__(finished.output)
        self.finished = finished


class Running:
    """A command that has started. Await `wait`, and `stop` when its lease ends; either may come first."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        output: Output,
        command: Command,
        session: Session,
        limit_seconds: float | None,
    ) -> None:
        self._process = process
        self._output = output
        self._command = command
        self._session = session
        self._loop = asyncio.get_running_loop()
        self._deadline = None if limit_seconds is None else self._loop.time() + limit_seconds
        self._timed_out = False
        output.follow(self._kill_group if isinstance(command, DesktopCommand) else None)
        if adopts_orphans():
            self._loop.add_signal_handler(signal.SIGCHLD, reap_adopted, process.pid)
            reap_adopted(process.pid)  # who ended before that, nobody announces again

    async def wait(self) -> Finished:
        """How it ended: a desktop command within its time limit, a job whenever it ends or is stopped."""
        try:
            async with asyncio.timeout_at(self._deadline):
                await self._process.wait()
        except TimeoutError:
            self._timed_out = True
            await self.stop()
        return self._finished()

    async def stop(self) -> None:
        """End it and all that it started, however far that daemonised. May be repeated. Raises ProcessesRemain."""
        await self.end()
        await kill_remains(self._session.belongings)

    async def end(self) -> None:
        """End its process group: SIGTERM, two seconds, SIGKILL; the rest is left to whoever wipes the session next.

        May be repeated. Raises ProcessesRemain.
        """
        try:
            if not (
                await self._ends_after(signal.SIGTERM, _GRACE_SECONDS)
                or await self._ends_after(signal.SIGKILL, _KILL_SECONDS)
            ):
                raise ProcessesRemain("The command cannot be killed.")
        finally:
            self._loop.remove_signal_handler(signal.SIGCHLD)
            self._output.close()

    async def _ends_after(self, number: signal.Signals, seconds: float) -> bool:
        if self._process.returncode is None:
            signal_group(self._process.pid, number)
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            return False
        return True

    def _kill_group(self) -> None:
        if self._process.returncode is None:
            signal_group(self._process.pid, signal.SIGKILL)

    def _finished(self) -> Finished:
        output = self._output.text(lambda text: redact(text, self._command))
        code = self._process.returncode
        exit_code = 128 - code if code is not None and code < 0 else code
        failure = _failure(exit_code, output) if isinstance(self._command, DesktopCommand) else None
        return Finished(exit_code, output, "timed-out" if self._timed_out else failure)


async def start(
    command: Command, session: Session, programs: Programs, *, name: str, limit_seconds: float | None = None
) -> Running:
    """Start the command in an open session; `name` is the machine's, as its desktop will be called.

    `limit_seconds` bounds a desktop command, from now on; a job has no limit but its lease's. Raises CannotStart.
    """
    output = Output()
    if isinstance(command, DesktopCommand) and command.pin is None:
        command = replace(command, pin=f"{secrets.randbelow(10**8):08d}")
        os.write(output.sink, _NO_PIN.encode())
    try:
        process = await _spawn(command, session, programs, name, output.sink)
    except OSError as error:
        output.close()
        raise CannotStart(_not_started(error, session)) from error
    finally:
        os.close(output.sink)
    return Running(process, output, command, session, limit_seconds if isinstance(command, DesktopCommand) else None)


async def _spawn(
    command: Command, session: Session, programs: Programs, name: str, sink: int
) -> asyncio.subprocess.Process:
    argv = _argument_vector(command, programs, name)
    if shutil.which(argv[0], path=programs.path) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), argv[0])
    with _standard_input(command) as source:
        return await asyncio.create_subprocess_exec(
            *_launcher(session.account),
            *argv,
            stdin=source,
            stdout=sink,
            stderr=sink,
            cwd=session.directory,
            env=_environment(session, programs),
            umask=0o077,
            start_new_session=True,
        )


def _launcher(account: Account | None) -> tuple[str, ...]:
    """What turns into the command: util-linux's setpriv, so that the kernel kills it when this process is gone.

    It changes the account too. Python would do both between fork and exec, and a fork copies the map of all its memory
    first: some ten times the work, and not safe beside threads. Other systems than Linux do without.
    """
    if sys.platform != "linux":
        return ()
    if account is None:
        return (SETPRIV, "--pdeathsig=KILL", "--")
    groups = f"--groups={','.join(map(str, account.groups))}" if account.groups else "--clear-groups"
    return (SETPRIV, "--pdeathsig=KILL", f"--reuid={account.uid}", f"--regid={account.gid}", groups, "--")


def _argument_vector(command: Command, programs: Programs, name: str) -> tuple[str, ...]:
    if not isinstance(command, DesktopCommand):
        return command.argv
    switches = (f"--code={command.code}", f"--redirect-url={command.redirect_url}", f"--name={name}")
    return (programs.start_host, *switches)


def _environment(session: Session, programs: Programs) -> dict[str, str]:
    """All that a command sees of the environment. DISPLAY is empty as in Google's line."""
    user = session.account.name if session.account else _own_name()
    home = str(session.directory)
    fixed = {"PATH": programs.path, "LANG": "C.UTF-8", "DISPLAY": "", "TMPDIR": str(session.temporary)}
    return fixed | {"HOME": home, "USER": user, "LOGNAME": user, MARK: session.belongings.mark}


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container may run as a number
        return str(os.geteuid())


@contextmanager
def _standard_input(command: Command) -> Iterator[int]:
    """The PIN, twice, for start-host's prompts (so that it is in no list of processes); nothing for a job."""
    source, sink = os.pipe()
    try:
        if isinstance(command, DesktopCommand):
            os.write(sink, f"{command.pin}\n{command.pin}\n".encode())
        os.close(sink)
        yield source
    finally:
        os.close(source)


def _failure(exit_code: int | None, output: str) -> str | None:
    if exit_code == 0:
        return None
    return "code-used" if "OAuth error" in output else "command-failed"


def _not_started(error: OSError, session: Session) -> Finished:
    at = Path(error.filename or "The command")
    missing = isinstance(error, FileNotFoundError | PermissionError) and at != session.directory
    output = f"{at.name} could not be started: {error.strerror}.\n"
    return Finished(None, output, failure="not-installed" if missing else "command-failed")
