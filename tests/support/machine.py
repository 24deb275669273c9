"""A machine with a state directory and a client of its own, in this process or in one that can be killed."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID, uuid4

import asyncpg

from client.agent import Agent
from client.boot import Boot
from client.direct import DirectTransport
from client.executor import Executor, OwnExecutor
from client.journal import Journal
from client.processes import kill_remains
from client.rotation import Passwords
from client.runner import Programs
from client.session import Session
from client.settings import Credential, DatabaseLogin, StateDir, load_credential
from client.transport import Transport
from tests.support import LIMIT_SECONDS
from tests.support.database import Database, Vm

AS_ROOT = {"session_user": "root"} if os.geteuid() == 0 else {}
"""The setting without which a client that root starts does not run."""


def address_of(dsn: str, port: int | None = None) -> DatabaseLogin:
    """The parts of a DSN of a server on this machine; with `port`, by way of a wire that listens there."""
    parts = urlsplit(dsn)
    return DatabaseLogin(
        host="127.0.0.1" if port else parts.hostname or "",
        port=port or parts.port or 5432,
        database=parts.path[1:],
        user=unquote(parts.username or ""),
        tls="loopback",
        password=unquote(parts.password or ""),
    )


DESKTOP = {"redirect_url": "https://remotedesktop.google.com/_/oauthredirect"}


@dataclass(slots=True)
class Machine:
    """An enrolled VM and what is on its disk."""

    vm: Vm
    state: StateDir
    address: DatabaseLogin
    starts: Path
    processes: list["ClientProcess"] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    """The checkpoints that clients in this process have passed."""
    executor: Executor | None = None
    """Who runs commands for clients in this process; None: they do."""
    boot: Boot | None = None
    """What clients in this process say of the machine's boot."""

    @classmethod
    def of(cls, vm: Vm, root: Path, port: int | None = None) -> "Machine":
        """The machine as enrolment left it, its start-host a script that counts how often it was started."""
        root.mkdir()
        machine = cls(vm, StateDir(root), address_of(vm.dsn, port), root / "starts")
        credential = Credential(vm.id, vm.hostname, "direct", machine.address)
        machine.state.credential.write_text(json.dumps(asdict(credential)))
        settings = {"start_host": str(machine.start_host()), "boot_id": machine.boot_id.name, **AS_ROOT}
        machine.state.settings.write_text(json.dumps(settings))
        machine.boot_id.write_text(str(uuid4()))
        Journal.create(machine.state.journal)
        return machine

    @property
    def boot_id(self) -> Path:
        """Where clients that are processes read which boot this is."""
        return self.state.root / "boot_id"

    def speaks_over_the_hub(self, url: str) -> None:
        """From its next start on, to the allocator at this address."""
        credential = load_credential(self.state.credential)
        told = asdict(replace(credential, transport="hub", allocator_url=url))
        self.state.credential.write_text(json.dumps(told))

    async def loses_power(self) -> None:
        """All that runs on it ends at once, and what starts next is of another boot."""
        await self.stop()
        await kill_remains(Session(self.state.session).belongings)
        self.boot_id.write_text(str(uuid4()))

    def start_host(self, then: str = 'echo "Host started successfully."') -> Path:
        """A start-host that notes that it was started, and then does `then`."""
        script = self.state.root / "start-host"
        script.write_text(f"#!/bin/sh\necho x >> {self.starts}\n{then}\n")
        script.chmod(0o755)
        return script

    def job(self, then: str = "true") -> list[str]:
        """The argument vector of a job that notes that it was started, and then does `then`."""
        return ["sh", "-c", f"echo x >> {self.starts}; {then}"]

    def count_starts(self) -> int:
        """How often a command was started on this machine."""
        return len(self.starts.read_text().split()) if self.starts.exists() else 0

    @asynccontextmanager
    async def serving(self, **options: Any) -> AsyncIterator[None]:
        """Its client, as a task of this process, speaking to PostgreSQL."""
        async with self.serving_over(DirectTransport(self.address, self.passwords(), **options)):
            yield

    def passwords(self) -> Passwords:
        """What lets it in, as it stands on its disk."""
        return Passwords(self.state, load_credential(self.state.credential))

    @asynccontextmanager
    async def serving_over(self, way: Transport) -> AsyncIterator[None]:
        """Its client, as a task of this process, speaking that way."""
        async with way as transport:
            programs = Programs(start_host=str(self.state.root / "start-host"))
            steps = self.steps.append
            own = OwnExecutor(Session(self.state.session), programs)
            agent = Agent(transport, Journal(self.state.journal), self.executor or own, steps, lambda: self.boot)
            task = asyncio.create_task(agent.run())
            try:
                yield
            finally:
                task.cancel()
                await asyncio.wait([task])

    async def start(self, die_at: str = "", under: Sequence[str] = (), code: Path | None = None) -> "ClientProcess":
        """Its client, as a process that kills itself with -9 when it is at the step `die_at`.

        `under` are the words of a command that runs it, such as strace; `code` is another checkout to take it from.
        """
        self.processes.append(await started_client(self.state.root, die_at, under, code))
        return self.processes[-1]

    async def stop(self) -> None:
        """End every client process that is left."""
        for client in self.processes:
            await client.kill()


@dataclass(slots=True)
class ClientProcess:
    """A running `lablink-client`."""

    process: asyncio.subprocess.Process
    end: asyncio.Task[tuple[bytes, bytes]]

    @property
    def log(self) -> str:
        """What it logged, once it has ended."""
        return self.end.result()[1].decode()

    async def ended(self) -> int:
        """Wait until it has ended by itself. Returns its exit code."""
        await asyncio.wait([self.end], timeout=LIMIT_SECONDS)
        assert self.process.returncode is not None, "the client did not end"
        return self.process.returncode

    async def kill(self) -> None:
        """Kill it with -9, unless it has ended."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError):  # it has, and nobody has told us yet
                os.killpg(self.process.pid, signal.SIGKILL)
        await self.ended()


async def started_client(
    state_dir: Path, die_at: str = "", under: Sequence[str] = (), code: Path | None = None
) -> ClientProcess:
    """A `lablink-client run` on this state directory."""
    command = [
        *under,
        sys.executable,
        "-m",
        "tests.support.mortal_client",
        die_at,
        "run",
        "--state-dir",
        str(state_dir),
    ]
    process = await asyncio.create_subprocess_exec(
        *command, stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL, start_new_session=True, cwd=code
    )
    return ClientProcess(process, asyncio.create_task(process.communicate()))


@dataclass(slots=True)
class Pool:
    """The allocator's side: asks for machines, and watches what becomes of it."""

    owner: "asyncpg.Connection[asyncpg.Record]"
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    async def of(cls, database: Database) -> "Pool":
        """The default pool, which runs `sh`."""
        pool = cls(await database.connect("lablink"))
        await pool.owner.execute("SELECT ensure_pool('default', true, ARRAY['sh'], 3600, 60, 3600)")
        for channel in ("vm_updates", "lease_updates"):
            await pool.owner.add_listener(channel, pool._heard)
        return pool

    async def hello_every(self, seconds: float) -> None:
        """Have machines say hello this often; who is late may be lent, and is not lost, at least as long as usually."""
        usual = await self.owner.fetchrow("SELECT fresh_for(), lost_after()")
        assert usual is not None
        await self.owner.execute(
            f"CREATE OR REPLACE FUNCTION hello_period() RETURNS double precision LANGUAGE sql STABLE RETURN {seconds}"
        )
        for patience, least in usual.items():
            await self.owner.execute(
                f"CREATE OR REPLACE FUNCTION {patience}() RETURNS interval LANGUAGE sql STABLE "
                f"RETURN greatest(interval '{least.total_seconds()} s', make_interval(secs => 3 * {seconds} + 15))"
            )

    async def request_job(self, argv: list[str]) -> UUID:
        """A lease whose command is this job."""
        return await self._request("job", {"argv": argv}, None)

    async def request_desktop(self, pin: str = "123456") -> UUID:
        """A lease whose command registers a desktop."""
        return await self._request("desktop", DESKTOP, {"code": "4/0AbCdEfGhIjKl", "pin": pin})

    async def renew_line(self, lease: UUID) -> None:
        """The person gives a fresh line for a desktop."""
        secrets = json.dumps({"code": "4/0FreshCodeFresh", "pin": "123456"})
        await self.owner.execute("SELECT renew_line($1, $2, $3, '')", lease, json.dumps(DESKTOP), secrets)

    async def _request(self, kind: str, command: dict[str, Any], secrets: dict[str, str] | None) -> UUID:
        lease: UUID = await self.owner.fetchval(
            "SELECT lease_id FROM request_vm($1, $2, $3, $4, '', sha256('t'), '\\x00')",
            f"{uuid4()}@example.org",
            kind,
            json.dumps(command),
            json.dumps(secrets) if secrets else None,
        )
        return lease

    async def end(self, lease: UUID) -> None:
        """The person hands the machine back."""
        await self.owner.execute("SELECT end_lease($1)", lease)

    async def lease(self, lease: UUID) -> "asyncpg.Record":
        """The lease as it is now."""
        row = await self.owner.fetchrow("SELECT * FROM leases WHERE id = $1", lease)
        assert row is not None
        return row

    async def settled(self, lease: UUID) -> "asyncpg.Record":
        """The lease once it is active or over, or its holder is asked for a line."""
        await self.until("SELECT needs_line OR status = 'active' OR NOT live FROM leases WHERE id = $1", lease)
        return await self.lease(lease)

    async def finished(self, lease: UUID) -> "asyncpg.Record":
        """The lease once its command has ended, or it is over, or its holder is asked for a line."""
        await self.until("SELECT exit_code IS NOT NULL OR needs_line OR NOT live FROM leases WHERE id = $1", lease)
        return await self.lease(lease)

    async def available(self, machine: Machine) -> None:
        """Wait until the machine is available."""
        await self.until("SELECT status = 'available' FROM vms WHERE id = $1", machine.vm.id)

    async def until(self, question: str, *arguments: object) -> None:
        """Wait until the answer is true, for at most two minutes. It is asked again whenever something changed.

        It is also asked now and then, because a heartbeat changes something that nobody is told of.
        """
        async with asyncio.timeout(LIMIT_SECONDS):
            while not await self.owner.fetchval(question, *arguments):
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.changed.wait(), 0.05)
                self.changed.clear()

    def _heard(self, *_: object) -> None:
        self.changed.set()


async def reached(condition: Callable[[], bool]) -> None:
    """Wait until something that nothing announces is so, for at most two minutes."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def reached_by(condition: Callable[[], Awaitable[bool]]) -> None:
    """The same of something that has to be asked for."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
