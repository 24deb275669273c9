"""compose.yaml as an admin starts it: people are served, what dies comes back, and nobody learns what is not theirs."""

import json

import pytest

from tests.images.engine import IMAGES, inspected, run
from tests.images.stack import MACHINES, Stack
from tests.support.up import until

pytestmark = pytest.mark.timeout(1200)

WHO = "SELECT id, seen_at FROM vms JOIN vm_heartbeats ON vm_id = id WHERE hostname = 'vm-1'"
LEAVES = "import ctypes; open('/tmp/left', 'w'); assert ctypes.CDLL(None).shmget(0, 4096, 0o1600) >= 0"
LEFT = "find /tmp /dev/shm -user labuser; tail -n +2 /proc/sysvipc/shm | wc -l"
WITHOUT_TLS = """
import asyncio, asyncpg, pathlib
password = pathlib.Path("/run/secrets/app-password").read_text().strip()
who = dict(user="lablink_app", password=password, database="lablink_db")
asyncio.run(asyncpg.connect(host="postgres", ssl="disable", **who))
"""


def in_state(stack: Stack, machine: str, script: str) -> str:
    """What a script prints in the state directory of a machine, whether that runs or not."""
    volume = (f"--volume={stack.project}_{machine}:/var/lib/lablink", "--workdir=/var/lib/lablink")
    return run("docker", "run", "--rm", *volume, "--entrypoint=sh", "lablink-client", "-c", script)


def retire(stack: Stack, machine: str) -> None:
    """Have a machine forget who it was."""
    stack.lablink("vms", "retire", "--yes", machine)
    until(lambda: "credential" not in in_state(stack, machine, "ls"), f"{machine} to forget who it was")


def test_a_persons_command_runs_on_a_machine_that_enrolled_by_itself(stack: Stack) -> None:
    lease = stack.serve("ada@example.org")

    assert lease["hostname"] in MACHINES
    assert (lease["status"], lease["exit_code"]) == ("active", 0)


@pytest.mark.parametrize("service", ["postgres", "allocator"])
def test_a_container_that_is_killed_comes_back_and_people_are_served(stack: Stack, service: str) -> None:
    stack.crash(service)

    until(stack.is_ready, "all machines")
    assert stack.serve(f"{service}@example.org")["exit_code"] == 0


def test_a_machine_that_is_killed_comes_back_as_who_it_was(stack: Stack) -> None:
    who, before = stack.psql(WHO), stack.psql("SELECT clock_timestamp()")

    stack.crash("vm-1")

    until(lambda: stack.psql(f"SELECT seen_at > '{before}' FROM ({WHO}) AS vm") == "t", "vm-1")
    assert stack.psql(WHO).split("|")[0] == who.split("|")[0]


def test_a_second_start_leaves_the_machines_what_they_are(stack: Stack) -> None:
    enrolled = stack.psql("SELECT count(*) FROM events WHERE kind ~ 'enrol'")

    stack.compose("up", "--detach")

    until(stack.is_ready, "all machines")
    assert stack.psql("SELECT count(*) FROM events WHERE kind ~ 'enrol'") == enrolled


def test_a_retired_machine_is_invited_by_the_next_start(stack: Stack) -> None:
    retire(stack, "vm-3")

    stack.compose("up", "--detach")

    until(stack.is_ready, "all machines")


def test_what_a_machine_lays_in_its_volume_leads_its_token_nowhere_else(stack: Stack) -> None:
    retire(stack, "vm-3")
    in_state(stack, "vm-3", "ln -s /machines/vm-2/taken .join-token; ln -s /machines/vm-2 join-token")
    before = in_state(stack, "vm-2", "ls -A")

    stack.compose("up", "--detach")

    until(stack.is_ready, "all machines")
    assert in_state(stack, "vm-2", "ls -A") == before


def test_a_machine_that_is_in_its_own_way_keeps_nobody_from_starting(stack: Stack) -> None:
    retire(stack, "vm-3")
    in_state(stack, "vm-3", "mkdir join-token")

    stack.compose("up", "--detach")

    assert "vm-3 does not take its token." in stack.compose("logs", "invite")
    in_state(stack, "vm-3", "rmdir join-token")
    stack.compose("up", "--detach")
    until(stack.is_ready, "all machines")


def test_no_machine_is_in_a_network_of_another(stack: Stack) -> None:
    networks = [set(inspected(stack.container(machine))["NetworkSettings"]["Networks"]) for machine in MACHINES]

    assert networks == [{f"{stack.project}_direct-{number}"} for number in (1, 2, 3)]


def test_the_allocator_says_that_it_is_well(stack: Stack) -> None:
    until(
        lambda: inspected(f"{stack.project}-allocator")["State"]["Health"]["Status"] == "healthy", "a healthy allocator"
    )
    assert "available" in stack.lablink("vms", "list")
    assert json.loads(stack.lablink("verify", "--json")) == []


def test_the_allocator_is_nobody_and_can_write_nothing_but_what_it_keeps(stack: Stack) -> None:
    container = f"{stack.project}-allocator"

    assert run("docker", "exec", container, "id", "-u").strip() == "10001"
    written = run("docker", "exec", container, "sh", "-c", "touch /opt/x /etc/x /var/lib/x 2>&1 || true")
    assert written.count("Read-only file system") == 3
    run("docker", "exec", container, "lablink", "db", "backup", "--to", "/var/lib/lablink/backups")


def test_a_machine_sees_no_password_but_its_own(stack: Stack) -> None:
    seen = run("docker", "exec", stack.container("vm-1"), "ls", "/run/secrets").split()

    assert seen == ["authority.pem"]


def test_nothing_that_somebody_leaves_on_a_machine_stays_there(stack: Stack) -> None:
    machine = stack.container("vm-2")
    run("docker", "exec", "--user", "labuser", machine, "python", "-c", LEAVES)
    assert run("docker", "exec", machine, "sh", "-c", LEFT).split() == ["/tmp/left", "1"]

    stack.lablink("vms", "fail", "vm-2")
    stack.lablink("vms", "return", "vm-2")

    until(stack.is_ready, "all machines")
    assert run("docker", "exec", machine, "sh", "-c", LEFT).split() == ["0"]


def test_nothing_secret_is_in_an_image_or_in_what_the_engine_tells(stack: Stack) -> None:
    secrets = [file.read_text().strip() for file in (stack.directory / "secrets").glob("*-password")]
    told = [
        run("docker", "inspect", stack.container(service)) for service in ("postgres", "allocator", "deploy", "vm-1")
    ]
    told += [run("docker", "history", "--no-trunc", image) for image in IMAGES]

    assert len(secrets) == 4
    assert [secret for secret in secrets if any(secret in words for words in told)] == []


def test_nobody_gets_in_without_tls(stack: Stack) -> None:
    tried = run("docker", "exec", f"{stack.project}-allocator", "sh", "-c", f"python -c '{WITHOUT_TLS}' 2>&1 || true")

    assert "pg_hba.conf rejects connection" in tried
