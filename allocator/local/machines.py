"""The machines of `lablink up`: which there shall be, and what the client of each finds in its state directory."""

import json
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import asyncpg

from allocator.invitations import invite_vm
from allocator.local import start_host
from allocator.local.accounts import discard, own_directory, reachable, stranger
from allocator.local.installation import Installation
from allocator.local.supervisor import Child, Verdict, environment

POOL = "default"
ELSEWHERE = Path("/var/lib/lablink-up")
"""Where root's machines live when their users cannot reach the data directory."""

NAME = re.compile(r"vm-([1-9][0-9]*)")
INVITATION = "join-token"
CREDENTIAL_BYTES = 65_536
NOT_ENROLLED = 77
PRESENT = "SELECT hostname, lease_id IS NOT NULL AS lent FROM vms WHERE pool = $1 AND status <> 'retired'"
TAKEN = "SELECT hostname FROM vms WHERE status <> 'retired' UNION SELECT hostname FROM fleet_vms"
SHEBANG_BYTES = 120
TOKEN_SECONDS = 600
"""Longer than any start takes; a client that comes later is invited anew."""


def choose(
    present: Sequence[tuple[str, bool]], wanted: int, elsewhere: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """Which machines to run and which to retire, given (name, lent now) of those that are in the database.

    Whoever holds a machine keeps it, even if that makes more machines; missing ones get the lowest free numbers. What
    is `elsewhere` is a fleet's: neither run nor retired here.
    """
    here = [(name, lent) for name, lent in present if name not in elsewhere]
    ours = [(not lent, int(match[1]), name) for name, lent in here if (match := NAME.fullmatch(name))]
    room = max(wanted, sum(not free for free, _, _ in ours))
    ranked = [name for _, _, name in sorted(ours)]
    keep, surplus = ranked[:room], ranked[room:]
    number = 0
    while len(keep) < wanted:
        number += 1
        if (name := f"vm-{number}") not in ranked and name not in elsewhere:
            keep.append(name)
    return sorted(keep, key=lambda name: int(name[3:])), surplus


@dataclass(frozen=True, slots=True)
class Machines:
    """The machines of one installation, and the directory that has a directory for each of them."""

    installation: Installation
    home: Path

    @classmethod
    def of(cls, installation: Installation) -> "Machines":
        """The machines of an installation; makes the directory that they live in."""
        return cls(installation, home_of_machines(installation.data_dir))

    async def settle(self, wanted: int) -> list[str]:
        """Make the database know `wanted` machines, retiring and inviting; returns their names."""
        async with self.installation.owner() as connection:
            rows = await connection.fetch(PRESENT, POOL)
            elsewhere = {row["hostname"] for row in await connection.fetch("SELECT hostname FROM fleet_vms")}
            keep, surplus = choose([(row["hostname"], row["lent"]) for row in rows], wanted, elsewhere)
            for hostname in surplus:
                await connection.execute("SELECT retire_vm($1)", hostname)
                discard(self.home / hostname)
            known = {row["hostname"] for row in rows}
            for hostname in keep:
                if not _orderly(self.home / hostname):
                    discard(self.home / hostname)
                own_directory(self.home / hostname)
                if hostname not in known or not self._enrolled(hostname):
                    await self._invite(connection, hostname)
        return keep

    async def add(self, number: int, beside: Collection[str]) -> list[str]:
        """Invite so many machines more, whose names nobody has and none `beside` them; returns their names."""
        async with self.installation.owner() as connection:
            taken = {row["hostname"] for row in await connection.fetch(TAKEN)} | set(beside)
            names = (f"vm-{n}" for n in count(1))
            hostnames = list(islice((name for name in names if name not in taken), number))
            for hostname in hostnames:
                discard(self.home / hostname)
                own_directory(self.home / hostname)
                await self._invite(connection, hostname)
        return hostnames

    async def retire(self, hostnames: Sequence[str]) -> list[str]:
        """Retire these; or none, where somebody is on one: those are returned."""
        async with self.installation.owner() as connection:
            return list(await connection.fetchval("SELECT retire_idle_vms($1)", hostnames))

    def discard(self, hostnames: Iterable[str]) -> None:
        """Remove what machines that were retired have left."""
        for hostname in hostnames:
            discard(self.home / hostname)

    def clients(self, hostnames: Iterable[str]) -> list[Child]:
        """A client for each machine, as a child whose settings are written."""
        start_host = self._install_start_host()
        return [self._client(hostname, start_host) for hostname in hostnames]

    def _client(self, hostname: str, start_host: Path) -> Child:
        directory = self.home / hostname
        settings = {
            "allocator_url": self.installation.url,
            "join_token_file": INVITATION,
            "start_host": str(start_host),
        }
        user = self._write(directory / "settings.json", json.dumps(settings, indent=2) + "\n")
        child = Child(
            hostname,
            ["lablink-client", "run", "--state-dir", str(directory)],
            self.installation.logs / f"{hostname}.log",
            environment(HOME=str(directory)),
            user=user,
        )
        child.judge = lambda code: self._judge(child, code)
        return child

    def _install_start_host(self) -> Path:
        """The stand-in for Google's start-host, where every machine's user can run it and note which codes are used."""
        directory = self.home / "stand-in"
        directory.mkdir(mode=0o755, exist_ok=True)
        program = directory / "start-host"
        _, _, body = Path(start_host.__file__).read_text().partition("\n")
        program.write_text(f"#!{self._python()}\n{body}")
        program.chmod(0o755)
        codes = directory / "codes"
        codes.mkdir(exist_ok=True)
        codes.chmod(0o1733)
        return program

    def _python(self) -> str:
        """An interpreter for a script's first line: ours if the machines' users can reach it."""
        ours = Path(sys.executable)
        usable = reachable(ours, stranger()) and len(str(ours)) < SHEBANG_BYTES and " " not in str(ours)
        return str(ours) if usable else "/usr/bin/env python3"

    async def _judge(self, client: Child, code: int) -> Verdict:
        """What becomes of a client that ended: one whose machine was deleted is invited again, a retired one stays."""
        if code != NOT_ENROLLED:
            return client.usual_verdict(code)
        hostname = client.name
        try:
            async with self.installation.owner() as connection:
                if await connection.fetchval("SELECT status = 'retired' FROM vms WHERE hostname = $1", hostname):
                    return Verdict(False, f"{hostname} was retired; the next `lablink up` brings it back.")
                await self._invite(connection, hostname)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            return Verdict(True, f"{hostname} is not enrolled any more and cannot be invited yet: {error}")
        return Verdict(True, f"{hostname} is not enrolled any more; it is invited again.")

    async def _invite(self, connection: asyncpg.Connection, hostname: str) -> None:
        """Give the machine a join token, as an admin would."""
        token = await invite_vm(connection, hostname, POOL, TOKEN_SECONDS)
        self._write(self.home / hostname / INVITATION, f"{token}\n")

    def _enrolled(self, hostname: str) -> bool:
        """True when the machine has a credential for the database where it is now."""
        try:
            credential = json.loads(_read(self.home / hostname / "credential.json"))
            return bool(credential["database"]["port"] == self.installation.server.port)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return False

    def _write(self, path: Path, text: str) -> int | None:
        """A file that only the machine's user can read, there in full or not at all; returns that user if we are root.

        That user may have put anything into the directory, and we may be root: the name is new, no link is followed.
        """
        account = own_directory(path.parent)
        descriptor, staging = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
        with open(descriptor, "w") as file:
            file.write(text)
            if account:
                os.fchown(file.fileno(), account.uid, account.gid)
        os.replace(staging, path)
        return account.uid if account else None


def _orderly(directory: Path) -> bool:
    """Whether a machine's directory holds what a client puts there: files, and the session's directory.

    A job may have left pipes and directories under the names of files, at which we or the next client would stop.
    """
    if not directory.exists():
        return True
    with os.scandir(directory) as entries:
        return all(each.is_file(follow_symlinks=False) or each.name == "session" for each in entries)


def _read(path: Path) -> bytes:
    """A file that its machine's user may have replaced by anything: no link is followed, no end awaited."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError(f"{path} is not a file")
        return file.read(CREDENTIAL_BYTES)


def home_of_machines(data_dir: Path) -> Path:
    """`data_dir`/vms: where each machine has its state, and where its user may go.

    A data directory below /root, say, is closed to everybody else; there `vms` is a link to a place that is not.
    """
    home = data_dir / "vms"
    if not reachable(home, stranger()):
        _forget_lost_homes()
        if not home.exists():
            _link_elsewhere(home)
    home.mkdir(mode=0o755, exist_ok=True)
    return home.resolve()


def _link_elsewhere(home: Path) -> None:
    home.unlink(missing_ok=True)
    there = ELSEWHERE / secrets.token_hex(8)
    there.mkdir(parents=True, mode=0o755)
    (there / "linked-from").write_text(str(home.absolute()))
    home.symlink_to(there)


def _forget_lost_homes() -> None:
    """Remove what belonged to data directories that are gone."""
    for there in ELSEWHERE.glob("*/linked-from"):
        if Path(there.read_text()).resolve() != there.parent:
            shutil.rmtree(there.parent, ignore_errors=True)
