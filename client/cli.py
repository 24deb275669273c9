"""`lablink-client`: enrols a machine in a pool, and serves the pool from it."""

import argparse
import asyncio
import fcntl
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import cast, get_args

from client.agent import Agent
from client.boot import Boot, boot_name, boot_of, uptime
from client.delegate import Delegate
from client.direct import DirectTransport
from client.enrol import EnrolmentError, Invitation, TokenRefused, forget
from client.executor import Executor, own_executor
from client.install import Installation, InstallError
from client.joining import NotEnrolled, credential_of, invitation_from, join, started_at
from client.journal import Journal
from client.logs import log_to_stderr
from client.network import InsecureAddress
from client.processes import ProcessesRemain
from client.protocol import TransportName
from client.rotation import Passwords
from client.session import SessionError
from client.settings import Credential, Settings, SettingsError, StateDir, load_settings
from client.switch import Switch, Way
from client.systemd import STOPPING, tell_systemd
from client.transport import Transport, UnknownVm

STOPPED = 0
FAILED = 1
NOT_ENROLLED = 77
"""The machine needs a new join token; whoever supervises it may invite it anew."""

FOR_THE_HUB = f"{sys.executable} -m pip install 'lablink[hub]'"

Checkpoint = Callable[[str], None]

log = logging.getLogger("lablink.client")


class AlreadyServed(Exception):
    """Another client holds this state directory."""


_SAID = (
    AlreadyServed,
    EnrolmentError,
    InsecureAddress,
    InstallError,
    ProcessesRemain,
    SessionError,
    SettingsError,
    OSError,
)
"""What ends this process with a sentence; anything else is a mistake of ours."""


def main(arguments: Sequence[str] | None = None, checkpoint: Checkpoint = lambda step: None) -> None:
    """Run one command and exit. `checkpoint` is for tests, which end the process at a step."""
    log_to_stderr()
    sys.exit(_run(_parser().parse_args(arguments), checkpoint))


def _run(given: argparse.Namespace, checkpoint: Checkpoint) -> int:
    try:
        if given.command == "install":
            _install(given)
        else:
            _use(given, StateDir(given.state_dir.absolute()), checkpoint)
    except (NotEnrolled, TokenRefused, UnknownVm) as error:
        return _say(error, NOT_ENROLLED)
    except _SAID as error:
        return _say(error, FAILED)
    except KeyboardInterrupt:
        pass
    return STOPPED


def _install(given: argparse.Namespace) -> None:
    Installation(
        url=given.url,
        join_secret=given.join_secret,
        token_file=given.token_file,
        session_user=given.session_user,
        start_host=given.start_host,
        root=given.root.absolute(),
    ).install()
    log.info("installed", extra={"allocator": given.url})
    if find_spec("websockets") is None:
        log.warning("only PostgreSQL can be spoken to", extra={"for the hub": FOR_THE_HUB})


def _use(given: argparse.Namespace, state: StateDir, checkpoint: Checkpoint) -> None:
    settings = load_settings(given.settings.absolute() if given.settings else state.settings)
    try:
        with _only_client(state):
            if given.command == "enrol":
                _enrol_anew(state, _invitation(given, settings))
            else:
                executor = Delegate(settings.helper) if settings.helper else own_executor(settings, state)
                _serve_pool(state, settings, executor, checkpoint)
    except OSError as error:
        raise SettingsError(f"The state directory {state.root} cannot be used: {error}.") from error


def _serve_pool(state: StateDir, settings: Settings, executor: Executor, checkpoint: Checkpoint) -> None:
    began, started = uptime(), started_at(settings)
    phases = settings.phases or state.root / "phases"
    # Without these it is a process among others, on a computer that did not boot for it.
    boots = settings.helper or settings.join_secret
    boot = partial(boot_of, began, phases, started, boot_id=settings.boot_id) if boots else lambda: None
    try:
        asyncio.run(_serve(state, settings, executor, credential_of(state, settings), checkpoint, boot))
    except UnknownVm as error:
        if settings.join_secret:  # its supervisor starts it again, and it waits for the secret's next join token
            raise EnrolmentError(str(error)) from error
        raise


async def _serve(
    state: StateDir,
    settings: Settings,
    executor: Executor,
    credential: Credential,
    checkpoint: Checkpoint,
    boot: Callable[[], Boot | None],
) -> None:
    """Serve until a signal asks to stop. Raises UnknownVm once the machine is wiped and has forgotten who it was."""
    async with _transport(state, settings, credential) as transport:
        journal = Journal(state.journal, boot_name(settings.boot_id))
        agent = Agent(transport, journal, executor, checkpoint, boot)
        try:
            await _until_stopped(agent)
        except UnknownVm:
            await executor.wipe()
            checkpoint("left")
            forget(state)
            raise
    log.info("stopped")


def _transport(state: StateDir, settings: Settings, credential: Credential) -> Transport:
    """What carries the verbs. Raises SettingsError for what a later allocator may have said at enrolment."""
    if credential.transport not in get_args(TransportName):
        raise SettingsError(
            f"This client knows no transport {credential.transport!r}: install that of the allocator's version."
        )
    wake, passwords = asyncio.Event(), Passwords(state, credential)
    ways: dict[str, Callable[[], Way]] = {
        "direct": lambda: DirectTransport(credential.database, passwords, wake),
        "hub": lambda: _hub(settings.allocator_url or credential.allocator_url, passwords, wake),
    }
    return Switch(cast(TransportName, credential.transport), ways, wake, passwords.keep_transport)


def _hub(url: str | None, passwords: Passwords, wake: asyncio.Event) -> Way:
    """The way over a WebSocket. Raises SettingsError where this machine cannot take it."""
    if url is None:
        raise SettingsError("This machine does not know where its allocator is: set allocator_url.")
    try:
        from client.hub import HubTransport
    except ImportError as error:
        raise SettingsError(
            f"What the hub needs is not installed on this machine: {FOR_THE_HUB}. "
            "Until then it can only speak to PostgreSQL (transport=direct, or auto)."
        ) from error
    return HubTransport(url, passwords, wake)


async def _until_stopped(agent: Agent) -> None:
    serving = asyncio.ensure_future(agent.run())

    def stop() -> None:
        if not serving.cancelling():  # what it ends meanwhile is not left half done
            serving.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    await asyncio.wait([serving])
    tell_systemd(STOPPING)
    if not serving.cancelled():
        serving.result()


def _enrol_anew(state: StateDir, invitation: Invitation) -> None:
    if state.credential.exists():
        raise EnrolmentError(f"This machine is enrolled already. To enrol it anew, remove {state.credential} first.")
    join(state, invitation)


def _invitation(given: argparse.Namespace, settings: Settings) -> Invitation:
    url = given.url or settings.allocator_url
    if url is None:
        raise EnrolmentError("Where is the allocator? Give --url https://…")
    if given.token:
        return Invitation(url, given.token)
    file = given.token_file or settings.join_token_file
    if file is None:
        raise EnrolmentError("Give the join token with --token or, better, --token-file.")
    return invitation_from(url, file)


@contextmanager
def _only_client(state: StateDir) -> Iterator[None]:
    """Hold the state directory's lock, which the kernel lets go of whatever ends this process."""
    state.root.mkdir(mode=0o711, parents=True, exist_ok=True)
    with open(os.open(state.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyServed(
                f"Another lablink-client already runs on {state.root}; there can be only one."
            ) from None
        yield


def _say(error: Exception, code: int) -> int:
    log.error("ended", extra={"reason": str(error), "exit_code": code})
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lablink-client",
        description="Lends this machine to people: enrols it in a LabLink pool and runs what they ask for.",
        epilog="Exit codes: 0 stopped by a signal, 1 it said why, 77 the machine needs a new join token.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    words = "set this machine up with systemd, and start its client (as root)"
    install = commands.add_parser(
        "install",
        help=words,
        description="Makes the accounts, settings and units that a machine with systemd needs, and starts its client, "
        "which then has no rights on it. Typed as root, with LabLink in /opt/lablink.",
        epilog="Example: lablink-client install --url https://lablink.example.org --token-file join-token",
    )
    run = commands.add_parser("run", help="serve until stopped; enrols first if settings.json names a join token")
    join = commands.add_parser("enrol", help="enrol this machine with a join token, and end")
    for command in (run, join):
        _add_state(command)
    join.add_argument("--url", metavar="URL", help="the allocator, for example https://lablink.example.org")
    token = join.add_mutually_exclusive_group()
    token.add_argument("--token", help="the join token itself (other users may see it in the list of processes)")
    token.add_argument("--token-file", type=Path, metavar="FILE", help="a file with the join token; removed afterwards")
    _add_installation(install)
    return parser


def _add_state(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--state-dir",
        type=Path,
        default=Path("/var/lib/lablink"),
        metavar="DIR",
        help="what this machine remembers: settings.json, credential, journal, session (default: %(default)s)",
    )
    words = "the settings (default: settings.json in the state directory)"
    command.add_argument("--settings", type=Path, metavar="FILE", help=words)


def _add_installation(install: argparse.ArgumentParser) -> None:
    install.add_argument(
        "--url", required=True, metavar="URL", help="the allocator, such as https://lablink.example.org"
    )
    token = install.add_mutually_exclusive_group()
    token.add_argument("--join-secret", metavar="ARN", help="on EC2: name or ARN of the secret with the join token")
    token.add_argument("--token-file", type=Path, metavar="FILE", help="a file with the join token; removed afterwards")
    account = "the account that people's commands run as, made if it is not there (default: %(default)s)"
    install.add_argument("--session-user", default="labuser", metavar="NAME", help=account)
    install.add_argument(
        "--start-host", metavar="PATH", help="where start-host is, unless where Google's package puts it"
    )
    install.add_argument(
        "--root", type=Path, default=Path("/"), metavar="DIR", help="set up this tree, and start nothing"
    )


if __name__ == "__main__":
    main()
