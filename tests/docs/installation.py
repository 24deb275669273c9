"""The computers of docs/operations.md: the server with PostgreSQL and the allocator, and the machines to lend."""

import asyncio
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

from allocator.local.accounts import account_of_server
from allocator.local.postgres_cluster import Cluster
from tests.docs.computer import Computer
from tests.docs.markdown import PROGRAMS, Step
from tests.support.doors import version_with_tls
from tests.support.server import MEMORY
from tests.support.up import free_port, open_directory

PASSWORD = "of-the-superuser"
MACHINES = ("vm-1", "vm-2", "vm-3")
CONF = """
port = {port}
listen_addresses = 'localhost'
unix_socket_directories = ''
"""
COPY = 'host=${2%%.*}; cp "$1" "$ROOT/machines/$host${2#*:$ROOT}"'
"""What scp does between directories that stand for computers."""


@dataclass(slots=True)
class Installation:
    """The server, on which most is typed, and the machines by their names."""

    server: Computer
    machines: dict[str, Computer]

    def follow(self, step: Step) -> None:
        """Type a step where it belongs: on the server, on one machine, or on each of them."""
        for computer in self._places(step):
            computer.type(step)

    def _places(self, step: Step) -> list[Computer]:
        if step.where == "on each machine":
            return list(self.machines.values())
        return [self.machines[step.where.removeprefix("on ")] if step.where else self.server]

    def ask(self, statement: str) -> str:
        """What a statement of the owner's answers: columns apart by |."""
        done = self.server.run(f'psql "$(lablink db url)" -Atqc {shlex.quote(statement)}')
        done.check_returncode()
        return done.stdout.strip()

    def settled(self) -> bool:
        """Whether no machine is about to become available."""
        return self.ask("SELECT count(*) FROM vms WHERE status IN ('cleaning', 'booting')") == "0"


def new_postgresql(computer: Computer, name: str, port: str) -> None:
    """An empty PostgreSQL with TLS built in, as a package installs it: a unit of that name, started."""
    directory = computer.root / name
    directory.mkdir()
    cluster = Cluster.under(directory, version_with_tls())
    asyncio.run(cluster.initialise(PASSWORD))
    with open(cluster.data / "postgresql.conf", "a") as conf:
        conf.write(CONF.format(port=port))
    programs = cluster.binaries.directory
    computer.add_unit(
        name,
        User=cluster.account.name if cluster.account else "",
        ExecStart=f"{programs}/postgres -D {cluster.data}",
        ExecStartPost=f"sh -c 'until {programs}/pg_isready -q -h localhost -p {port}; do sleep 0.02; done'",
        KillSignal="SIGINT",
    )
    computer.run(f"systemctl start {name}").check_returncode()


def package_pgbouncer(computer: Computer) -> None:
    """PgBouncer as its package leaves it: a unit that waits for its configuration."""
    account, settings = account_of_server(), computer.root / "etc/pgbouncer"
    settings.mkdir()
    program = f"/usr/sbin/pgbouncer {settings}/pgbouncer.ini"
    computer.add_unit("pgbouncer", User=account.name if account else "", ExecStart=program)


@contextmanager
def installation() -> Iterator[Installation]:
    """A server with nothing but PostgreSQL, and machines with nothing; all that runs on them is stopped at the end."""
    with ExitStack() as opened:
        root = opened.enter_context(open_directory(MEMORY if MEMORY.is_dir() else None))
        bound = words()
        environment = {"PORT": bound["5432"], "PASSWORD": PASSWORD}
        server = opened.enter_context(closing(Computer(root / "server", bound, environment)))
        server.add_program("scp", COPY)
        machines = {
            name: opened.enter_context(closing(Computer(server.root / "machines" / name, bound | {"vm-1": name})))
            for name in MACHINES
        }
        new_postgresql(server, "postgresql", bound["5432"])
        package_pgbouncer(server)
        yield Installation(server, machines)


def words() -> dict[str, str]:
    """What the names, ports and accounts of the document are here."""
    account = account_of_server()
    web, *ports = (str(free_port()) for _ in range(5))
    database, pooler, new, spare = ports
    return {
        "https://lab.example.org": f"http://127.0.0.1:{web}",
        "server.port=8000": f"server.port={web}\nsweeps.period_seconds=0.2",
        "PASSWORD@": f"{PASSWORD}@",
        "db.example.org": "localhost",
        "new.example.org": "localhost",
        "listen_addresses = '*'": "listen_addresses = 'localhost'",
        "spare.example.org": "localhost",
        "5432": database,
        "6432": pooler,
        "5433": new,
        "5434": spare,
        "/opt/lablink/bin/": f"{PROGRAMS}/",
        "/opt/lablink/bin": str(PROGRAMS),
        "-o postgres -g postgres ": f"-o {account.name} -g {account.gid} " if account else "",
        '"session_user": "labuser", ': '"session_user": "root", ' if account else "",
    }
