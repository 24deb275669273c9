"""Nothing of an account that only sessions use stays: no process, no file, nothing that the kernel keeps for it."""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from client.command import JobCommand
from client.runner import Programs, Running, start
from client.session import Account, Session, WipeFailed
from client.system_v import remove_made_by
from tests.support import LIMIT_SECONDS
from tests.support.commands import CHAIN, DAEMON, ended, is_closed, opened_fifo

# Python 3.12 and later warn; what is forked to kill an account's processes asks the kernel for that and ends
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

UID = 60_000 + os.getpid() % 5_000
"""Nobody's, and another one in every process that runs tests at the same time: a wipe kills all of it."""


@pytest.fixture
async def unprivileged() -> AsyncIterator[Session]:
    """A session of an account that nobody has; only root can become it."""
    if os.geteuid() != 0 or not shutil.which("python3", path=Programs().path):
        pytest.skip("needs root, and a python3 that every account can run")
    state = Path(tempfile.mkdtemp())
    state.chmod(0o711)
    (state / "shared").mkdir()
    (state / "shared").chmod(0o1777)
    account = Account("lablink-test", UID, UID, ())
    session = Session(state / "session", account, (str(state / "shared"), str(state / "not-there")))
    session.open()
    yield session
    await session.wipe()
    shutil.rmtree(state)


async def run_as_account(session: Session, program: str) -> str:
    running = await start(JobCommand(("python3", "-ISc", program)), session, Programs(), name="vm-1")
    async with asyncio.timeout(LIMIT_SECONDS):
        return (await running.wait()).output


async def test_a_command_runs_as_the_sessions_account(unprivileged: Session) -> None:
    show = "import os; print(os.getresuid(), os.getresgid(), os.getgroups(), os.environ['USER'])"
    running = await start(JobCommand(("python3", "-c", show)), unprivileged, Programs(), name="vm-1")
    ids = (UID,) * 3

    assert (await running.wait()).output == f"{ids} {ids} [] lablink-test\n"


async def test_all_of_the_accounts_processes_and_files_go_with_the_session(unprivileged: Session) -> None:
    shared = unprivileged.shared[0]
    program = f"import os, tempfile; os.mkdir('d', 0); print(tempfile.mkdtemp(dir='{shared}'), flush=True); {DAEMON}"
    hiding = f"import os; os.execve('/usr/bin/env', ['env', '-i', 'python3', '-c', {program!r}], {{}})"
    running: Running = await start(JobCommand(("python3", "-c", hiding)), unprivileged, Programs(), name="vm-1")
    left, daemon = (await running.wait()).output.split()
    assert Path(left).exists()
    await unprivileged.wipe()

    assert ended(int(daemon))
    assert not Path(left).exists()
    assert not unprivileged.directory.exists()


async def test_an_accounts_chain_of_processes_is_cut_by_whoever_never_adopted_it(unprivileged: Session) -> None:
    fifo = Path(unprivileged.shared[0], "fifo")
    reader = opened_fifo(fifo)
    await run_as_account(unprivileged, CHAIN.format(fifo=str(fifo)))
    await unprivileged.wipe()

    assert is_closed(reader)


SYSTEM_V = """
import ctypes
libc = ctypes.CDLL(None)
print(libc.shmget(0, 4096, 0o1600) >= 0, libc.semget(0, 1, 0o1600) >= 0, libc.msgget(0, 0o1600) >= 0)
"""


def system_v_of(uid: int) -> list[str]:
    tables = (Path(f"/proc/sysvipc/{kind}").read_text().splitlines() for kind in ("shm", "sem", "msg"))
    return [row for heading, *rows in tables for row in rows if row.split()[heading.split().index("cuid")] == str(uid)]


async def test_shared_memory_semaphores_and_queues_go_with_the_session(unprivileged: Session) -> None:
    assert await run_as_account(unprivileged, SYSTEM_V) == "True True True\n"
    assert len(system_v_of(UID)) == 3
    await unprivileged.wipe()

    assert system_v_of(UID) == []


async def test_what_removes_them_may_be_let_go_of_by_whoever_adopts_orphans(unprivileged: Session) -> None:
    await run_as_account(unprivileged, SYSTEM_V)
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel lets go of it, before anybody can
    try:
        remove_made_by(UID)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert system_v_of(UID) == []


KEYS = """
import ctypes, os
call = ctypes.CDLL(None).syscall
add, keyctl = {"x86_64": (248, 250), "aarch64": (217, 219)}[os.uname().machine]
print(call(keyctl, 10, -4, b"user", b"left", 0) >= 0, call(add, b"user", b"left", b"x", 1, -4) >= 0)
"""


async def test_keys_that_the_kernel_keeps_for_an_account_go_with_the_session(unprivileged: Session) -> None:
    found, added = (await run_as_account(unprivileged, KEYS)).split()
    if added == "False":
        pytest.skip("the kernel keeps no keys here")
    await unprivileged.wipe()
    unprivileged.open()

    assert found == "False"
    assert (await run_as_account(unprivileged, KEYS)).split() == ["False", "True"]


class CronTable(tuple[str, ...]):
    """Shared directories that are looked through in the minutes in which cron starts jobs of the account's."""

    __slots__ = ()
    minutes: ClassVar[int] = 0
    jobs: ClassVar[list[subprocess.Popen[bytes]]] = []

    def __iter__(self) -> Iterator[str]:
        if len(self.jobs) < self.minutes:
            self.jobs.append(subprocess.Popen(["/bin/sleep", "600"], user=UID, group=UID, extra_groups=[]))
        return super().__iter__()


async def test_what_cron_starts_during_a_wipe_does_not_outlive_it(unprivileged: Session) -> None:
    CronTable.minutes, CronTable.jobs = 1, []
    await replace(unprivileged, shared=CronTable(unprivileged.shared)).wipe()

    assert [job.wait(LIMIT_SECONDS) for job in CronTable.jobs] == [-9]


async def test_a_machine_on_which_somebody_keeps_starting_jobs_is_not_called_clean(unprivileged: Session) -> None:
    CronTable.minutes, CronTable.jobs = 100, []
    with pytest.raises(WipeFailed, match="keeps starting"):
        await replace(unprivileged, shared=CronTable(unprivileged.shared)).wipe()
    await unprivileged.wipe()

    assert {job.wait(LIMIT_SECONDS) for job in CronTable.jobs} == {-9}
