"""Machines from the first `terraform apply` to the last trace of them. Nothing is played but the cloud.

moto's server is AWS. What it says runs is really switched on here (tests/support/ec2): an instance with a disk,
accounts, a network and a systemd of its own, which boots with the user-data that Terraform gave it.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.certificates import Authority
from tests.support.cloud import NAME, Aws, fresh, moto_server
from tests.support.ec2.image import ADDRESSES, ALLOCATOR, SECRETS, build_image
from tests.support.ec2.instance import Surroundings, cannot_boot
from tests.support.ec2.network import Carrier, Way
from tests.support.ec2.region import Region
from tests.support.metadata import ACCOUNT, REGION, Signer
from tests.support.person import Person
from tests.support.service import DESKTOP_LINE, NO_TLS
from tests.support.terraform import environment_in
from tests.support.up import LABLINK, RunningUp, open_directory, running_up, until

LIMIT_SECONDS = 240.0
LOOK_EVERY = 0.5
DESKTOP_CODES = "/opt/google/chrome-remote-desktop/codes"
SESSION = "/var/lib/lablink/session"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    """AWS, as everything that is started here finds it."""
    if why := cannot_boot():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    with moto_server() as url:
        aws = fresh(url, tmp_path)
        for name, value in (environment_in(tmp_path) | aws.environment).items():
            monkeypatch.setenv(name, value)
        yield aws


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    """Who signs identity documents."""
    return Signer.under(tmp_path / "certificates")


@pytest.fixture
def up(aws: Aws, signer: Signer, tmp_path: Path) -> Iterator[RunningUp]:
    """A `lablink up` without machines of its own, whose allocator knows the fleet and looks after it often."""
    settings = [
        *(*aws.options(tmp_path / "work"), "fleet.period_seconds=1"),
        *("identity=ec2", f"identity.fleet={NAME}", f"identity.certificates={signer.directory}"),
        *(f"identity.accounts=['{ACCOUNT}']", f"identity.regions=[{REGION}]"),
    ]
    words = [f"--set={each}" for each in settings]
    with open_directory() as directory, running_up(directory / "data", "--vms=0", *words) as running:
        yield running


@pytest.fixture
def region(aws: Aws, up: RunningUp, signer: Signer, tmp_path: Path) -> Iterator[Region]:
    """The machines of EC2, with ways to the allocator, the database and Secrets Manager and nowhere else."""
    authority = Authority.under(tmp_path)
    database = urlsplit(up.dsn()).port or 0
    ways = (
        Way.private(ALLOCATOR, ADDRESSES[ALLOCATOR], up.port, authority),
        Way.private(SECRETS, ADDRESSES[SECRETS], urlsplit(aws.url).port or 0, authority),
        Way(("127.0.0.1", database), database),
    )
    with Carrier().carrying() as carrier:
        around = Surroundings(build_image(tmp_path / "image", authority), signer, carrier, ways, tmp_path)
        with Region(aws, around).open() as region:
            yield region


@pytest.fixture
def people(up: RunningUp) -> Iterator[list[Person]]:
    """Ada and Bob."""
    people = [Person(up.url, f"{name}@example.org") for name in ("ada", "bob")]
    yield people
    for person in people:
        person.leaves()


def fleet(up: RunningUp, *words: str) -> dict[str, list[str]]:
    """What `lablink fleet …` says that it has done."""
    with typed(up, *words) as command:
        return said(command)


@contextmanager
def typed(up: RunningUp, *words: str) -> Iterator[subprocess.Popen[str]]:
    """`lablink fleet …`, under way; at the end of the block it is asked to end, if it has not."""
    command = [str(LABLINK), "fleet", *words, "--json", f"--data-dir={up.data_dir}"]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(LIMIT_SECONDS)  # for the terraform that it started, as well


def said(command: subprocess.Popen[str]) -> dict[str, list[str]]:
    """What it says that it has done, once it has."""
    told, complained = command.communicate(timeout=LIMIT_SECONDS)
    assert command.returncode == 0, complained
    done: dict[str, list[str]] = json.loads(told)
    return done


def statuses(up: RunningUp) -> dict[str, str]:
    """The status of each machine that is not retired."""
    return {vm["hostname"]: vm["status"] for vm in httpx.get(f"{up.url}/api/v1/vms", timeout=60, verify=NO_TLS).json()}


def all_come(up: RunningUp, region: Region, *hostnames: str) -> None:
    """Returns when these machines have become available; nobody touches them."""

    def available() -> bool:
        region.check()
        return {statuses(up).get(hostname) for hostname in hostnames} == {"available"}

    try:
        until(available, f"{', '.join(hostnames)} to be available", LIMIT_SECONDS, LOOK_EVERY)
    except AssertionError as error:
        error.add_note(region.told())
        raise


def test_machines_come_are_lent_and_go_and_nothing_is_left_of_them(
    aws: Aws, up: RunningUp, region: Region, people: list[Person]
) -> None:
    ada, bob = people

    assert fleet(up, "grow", "2")["make"] == ["vm-1", "vm-2"]
    all_come(up, region, "vm-1", "vm-2")
    phases = [name for name, _ in up.json("vms", "show", "vm-1")["boot"]["phases"]]
    assert phases == ["instance", "cloud-init", "client", "ready-check"]
    assert aws.token("vm-1") not in aws.state()

    ada.asks("python3 -c \"open('found', 'w').write('by Ada')\"")
    ada.sees("Your command is done")
    adas = ada.lease()["hostname"]
    assert region.instance(adas).disk(f"{SESSION}/found").read_text() == "by Ada"

    assert fleet(up, "grow", "3")["make"] == ["vm-3", "vm-4", "vm-5"]
    all_come(up, region, "vm-3", "vm-4", "vm-5")

    gone = fleet(up, "shrink", "3")["remove"]
    assert len(gone) == 3 and adas not in gone
    assert ada.lease()["status"] == "active"
    assert region.instance(adas).disk(f"{SESSION}/found").exists()
    [free] = {"vm-1", "vm-2", "vm-3", "vm-4", "vm-5"} - {*gone, adas}
    stay = {region.instance(adas).id, region.instance(free).id}
    until(lambda: region.running == stay, "three instances to be switched off")

    bob.asks(DESKTOP_LINE)
    bob.sees("Your machine is ready")
    assert bob.lease()["hostname"] == free
    assert list(region.instance(free).disk(DESKTOP_CODES).iterdir())
    aws.client("ec2").terminate_instances(InstanceIds=[region.instance(free).id])
    assert "The machine that you had was removed." in bob.sees("You are next in line")
    assert (bob.lease()["status"], bob.lease()["trouble"]) == ("queued", "vm-deleted")
    assert up.json("vms", "show", free)["status"] == "retired"

    with typed(up, "destroy", "--yes", "--drain") as going:
        until(lambda: up.json("vms", "show", adas)["draining"], f"{adas} to be lent to nobody else", every=LOOK_EVERY)
        assert ada.lease()["status"] == "active"
        ada.gives_back()
        assert said(going)["remove"] == [adas]
    ada.sees("This lease is over")
    nothing_is_left(aws, up, region)


def nothing_is_left(aws: Aws, up: RunningUp, region: Region) -> None:
    """No orphan: not in AWS, not in Terraform's state, not in the database, and no promise is broken."""
    assert aws.instances() == {}
    assert aws.identities() == 0
    assert json.loads(aws.state())["resources"] == []
    assert up.json("fleet", "status") == []
    assert statuses(up) == {}
    until(lambda: not region.running, "the last instance to be switched off")
    done = up.lablink("verify")
    assert done.returncode == 0, done.stdout
