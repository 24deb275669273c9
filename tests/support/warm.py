"""`lablink` commands, each a copy of one process that has imported all of it: most of a short command is its imports.

They are processes of their own, with an environment and output of their own, at the root. How `lablink` itself starts
is seen by all that start it to go on (`up`, `serve`), and where documents are typed.
"""

import atexit
import gc
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

from tests.support import LIMIT_SECONDS
from tests.support.patient_command import make_patient

ROOT = Path(__file__).parents[2]
LONGEST = 1 << 17
"""Bytes of a request: arguments and environment."""


def run(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. Raises TimeoutError after two minutes, having killed it."""
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors, ours:
        request = [list(command), dict(environment)]
        with theirs:
            files = [out.fileno(), errors.fileno(), theirs.fileno()]
            socket.send_fds(_wire(), [json.dumps(request).encode()], files)
        code = _code(ours)
        written = [(file.seek(0), file.read().decode())[1] for file in (out, errors)]
    return subprocess.CompletedProcess(command, code, *written)


def _code(told: socket.socket) -> int:
    """The exit code of a command, of which first the process id is told: with the first, all has to be imported."""
    pid = int(told.recv(32))
    told.settimeout(LIMIT_SECONDS)
    try:
        return int(told.recv(32))
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
        raise


@cache
def _wire() -> socket.socket:
    """Where to ask the process that all are copies of, which is started here and ends with us."""
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-c", f"from {__name__} import serve; serve({theirs.fileno()})"]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()], cwd=ROOT
        )
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


def serve(descriptor: int) -> None:
    """Make a copy for every request that comes to this socket, until nobody can ask any more."""
    make_patient({})
    _import_everything()
    gc.freeze()
    wire = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait for the commands
    while True:
        request, files, _, _ = socket.recv_fds(wire, LONGEST, 3)
        if not request:
            return wire.close()
        if os.fork() == 0:
            wire.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return _run(request, *files)
        for file in files:
            os.close(file)


def _run(request: bytes, out: int, errors: int, told: int) -> None:
    """Become the command, whose exit code our parent tells."""
    if pid := os.fork():
        os.write(told, f"{pid}".encode())
        _, status = os.waitpid(pid, 0)
        os.write(told, f"{os.waitstatus_to_exitcode(status)}".encode())
        os._exit(0)
    os.dup2(out, 1)
    os.dup2(errors, 2)
    for file in (out, errors, told):
        os.close(file)
    command, environment = json.loads(request)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir("/")
    time.tzset()
    make_patient(environment)
    sys.argv = command
    try:
        import_module("allocator.cli").main()
    except SystemExit as end:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(end.code or 0))  # Python's own way out would take apart all that was imported


def _import_everything() -> None:
    import allocator

    for module in pkgutil.walk_packages(allocator.__path__, "allocator."):
        if not module.name.startswith("allocator.migrations"):
            import_module(module.name)
