"""An EC2 instance enrols with the token of its own secret and the identity that AWS has signed; no other machine does.

Real: the service, its database, the client. moto's server stands in for EC2 and Secrets Manager, a server of ours for
the metadata service, and a test's key for AWS's.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import boto3
import httpx
import pytest
import pytest_asyncio

from allocator.arrivals import Arrivals
from allocator.invitations import invite_vm
from allocator.tokens import sha256
from client.ec2 import AwsAway, Metadata, join_token
from client.scram import verifier
from tests.support import LIMIT_SECONDS
from tests.support.cloud import AMI, emptied, leads_to, moto_server
from tests.support.database import Database
from tests.support.joining import Joining
from tests.support.metadata import REGION, MetadataService, Signer, metadata_service
from tests.support.service import RunningService, ready, running_service, settings_for

FLEET = "lablink-test"
SECRET = f"{FLEET}/join/vm-1"

pytestmark = pytest.mark.postgresql


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """AWS, at an address that boto3 and the client take from the environment."""
    with moto_server() as url:
        for name, value in (leads_to(emptied(url)) | {"AWS_ENDPOINT_URL_SECRETS_MANAGER": url}).items():
            monkeypatch.setenv(name, value)
        yield url


def client_of(service: str) -> Any:
    return boto3.client(service, region_name=REGION)  # type: ignore[call-overload]


@pytest.fixture
def instance(aws: str) -> str:
    """An instance that Terraform made as vm-1."""
    tags = [{"Key": "lablink", "Value": FLEET}, {"Key": "lablink-hostname", "Value": "vm-1"}]
    made = client_of("ec2").run_instances(
        ImageId=AMI, MinCount=1, MaxCount=1, TagSpecifications=[{"ResourceType": "instance", "Tags": tags}]
    )
    return str(made["Instances"][0]["InstanceId"])


@pytest.fixture
def metadata(tmp_path: Path, instance: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[MetadataService]:
    monkeypatch.setattr("client.ec2._SECONDS", LIMIT_SECONDS)  # all of it may stand still for a while, AWS too
    with metadata_service(MetadataService(Signer.under(tmp_path / "certificates"))) as service:
        service.describe(instance)
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.url)
        yield service


@pytest_asyncio.fixture
async def service(database: Database, tmp_path: Path, metadata: MetadataService) -> AsyncIterator[RunningService]:
    """A service that knows the fleet, and whose signatures are AWS's."""
    account, certificates = metadata.claims["accountId"], tmp_path / "certificates"
    given = [f"identity.fleet={FLEET}", f"identity.accounts=['{account}']", f"identity.regions=[{REGION}]"]
    settings = settings_for(database, tmp_path, "identity=ec2", *given, f"identity.certificates={certificates}")
    async with running_service(settings) as running:
        await ready(running.service)
        yield running


async def invite(owner: asyncpg.Connection, instance: str) -> str:
    """What `lablink fleet apply` does at its end: the instance is written down, its token is in its secret."""
    made = "INSERT INTO fleet_vms (hostname, instance_id, made_at) VALUES ('vm-1', $1, clock()) ON CONFLICT DO NOTHING"
    await owner.execute(made, instance)
    token = await invite_vm(owner, "vm-1", "default", 3600)
    secrets = client_of("secretsmanager")
    try:
        secrets.create_secret(Name=SECRET, SecretString=token)
    except secrets.exceptions.ResourceExistsException:
        secrets.put_secret_value(SecretId=SECRET, SecretString=token)
    return token


@pytest.fixture
def machine(tmp_path: Path, service: RunningService) -> Joining:
    return Joining(tmp_path / "vm-1", service.url, SECRET)


async def show_up(service: RunningService, token: str) -> httpx.Response:
    """What a machine is answered that shows this token and its identity."""
    identity = await asyncio.to_thread(lambda: Metadata.opened().identity().as_fields())
    async with service.client() as http:
        asked = {"token": token, "verifier": verifier("of vm-1"), "identity": identity}
        return await http.post("/api/v1/enrolments", json=asked)


async def why_not(service: RunningService, owner: asyncpg.Connection, token: str) -> str:
    """What is written down of a machine that shows this token and its identity, and is not let in."""
    answer = await show_up(service, token)
    [event] = await owner.fetch("SELECT detail FROM events WHERE kind = 'alert.join'")

    assert answer.status_code == 403
    assert await owner.fetchval("SELECT count(*) FROM vms") == 0
    return str(json.loads(event["detail"])["why"])


async def test_the_instance_that_was_made_becomes_a_machine(
    machine: Joining, owner: asyncpg.Connection, instance: str
) -> None:
    await invite(owner, instance)
    credential = await machine.join()

    assert credential.hostname == "vm-1"
    assert await owner.fetchval("SELECT instance_id FROM join_tokens") == instance
    assert await machine.join() == credential


async def test_a_signature_that_is_not_awss_is_refused(
    service: RunningService, owner: asyncpg.Connection, instance: str, metadata: MetadataService, tmp_path: Path
) -> None:
    metadata.signer = Signer.under(tmp_path / "elsewhere")

    assert "no identity that AWS has signed" in await why_not(service, owner, await invite(owner, instance))


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"region": "us-east-1"}, "see identity.regions"),
        ({"region": "../certificates/eu-central-1"}, "see identity.regions"),
        ({"accountId": "999999999999"}, "see identity.accounts"),
        ({"instanceId": "i-0fedcba9876543210"}, "no instance i-0fedcba9876543210 that runs"),
        ({"pendingTime": "2024-01-01T00:00:00Z"}, "more than an hour old"),
        ({"pendingTime": None}, "no identity that AWS has signed"),
    ],
    ids=str,
)
async def test_an_identity_that_is_not_allowed_here_is_refused(
    service: RunningService,
    owner: asyncpg.Connection,
    instance: str,
    metadata: MetadataService,
    claims: dict[str, Any],
    words: str,
) -> None:
    metadata.claims |= claims

    assert words in await why_not(service, owner, await invite(owner, instance))


async def test_an_instance_that_is_not_tagged_ours_is_refused(
    service: RunningService, owner: asyncpg.Connection, instance: str, metadata: MetadataService
) -> None:
    client_of("ec2").delete_tags(Resources=[instance], Tags=[{"Key": "lablink"}])

    assert "not tagged as one of ours" in await why_not(service, owner, await invite(owner, instance))


async def test_an_instance_that_is_stopped_is_refused(
    service: RunningService, owner: asyncpg.Connection, instance: str
) -> None:
    client_of("ec2").stop_instances(InstanceIds=[instance])

    assert f"no instance {instance} that runs" in await why_not(service, owner, await invite(owner, instance))


async def test_while_ec2_does_not_answer_a_machine_is_told_to_come_again(
    service: RunningService, owner: asyncpg.Connection, instance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await invite(owner, instance)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    answer = await show_up(service, token)

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert await owner.fetchval("SELECT count(*) FROM events WHERE kind = 'alert.join'") == 0


async def test_a_stolen_token_alone_opens_nothing(
    service: RunningService, owner: asyncpg.Connection, instance: str
) -> None:
    token = await invite(owner, instance)
    async with service.client() as http:
        answer = await http.post("/api/v1/enrolments", json={"token": token, "verifier": verifier("a thief's")})

    assert answer.status_code == 403
    assert await owner.fetchval("SELECT count(*) FROM events WHERE kind = 'alert.join'") == 1


async def test_ec2_is_asked_only_about_who_has_a_token_that_is_open(
    service: RunningService, owner: asyncpg.Connection, instance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", "http://127.0.0.1:1")
    used, expired, open_ = [await invite(owner, instance) for _ in range(3)]
    await owner.execute("SELECT * FROM enrol_vm($1, $2)", sha256(used), verifier("the first's"))
    await owner.execute("UPDATE join_tokens SET expires_at = clock() WHERE token_sha256 = $1", sha256(expired))
    identity = await asyncio.to_thread(lambda: Metadata.opened().identity().as_fields())
    async with service.client() as http:
        for token, status in ((used, 403), (expired, 403), ("nobody's", 403), (open_, 503)):
            asked = {"token": token, "verifier": verifier("another's"), "identity": identity}
            assert (await http.post("/api/v1/enrolments", json=asked)).status_code == status


async def test_a_second_enrolment_of_a_live_instance_is_refused_and_written_down(
    machine: Joining, owner: asyncpg.Connection, instance: str, service: RunningService, tmp_path: Path
) -> None:
    await invite(owner, instance)
    await machine.join()
    role = await owner.fetchval("SELECT role FROM vms")
    await invite(owner, instance)
    with pytest.raises(Joining.Waited):
        await Joining(tmp_path / "again", service.url, SECRET).join()

    assert await owner.fetchval("SELECT role FROM vms") == role
    detail = json.loads(await owner.fetchval("SELECT detail FROM events WHERE kind = 'alert.join'"))
    assert detail["instance"] == instance
    assert "it cannot enrol a second time" in detail["why"]


async def test_a_machine_waits_until_its_secret_has_a_token_and_does_not_show_a_refused_one_again(
    machine: Joining, owner: asyncpg.Connection, instance: str
) -> None:
    machine.patient = True
    joining_ = asyncio.create_task(machine.join())
    await asyncio.to_thread(machine.waits.acquire)
    await invite(owner, instance)
    machine.go_on.set()

    assert (await joining_).hostname == "vm-1"


async def test_a_secret_is_read_with_the_instances_own_role(metadata: MetadataService, aws: str) -> None:
    client_of("secretsmanager").create_secret(Name=SECRET, SecretString="of vm-1\n")

    assert await asyncio.to_thread(read_secret, SECRET) == "of vm-1"
    with pytest.raises(AwsAway, match="ResourceNotFoundException"):
        await asyncio.to_thread(read_secret, "another")


def read_secret(name: str) -> str:
    return join_token(name, REGION, Metadata.opened().keys())


async def test_a_role_that_aws_has_not_given_yet_is_waited_for(metadata: MetadataService) -> None:
    metadata.credentials = {"Code": "AssumeRoleUnauthorizedAccess", "Message": "EC2 cannot assume the role"}
    with pytest.raises(AwsAway, match="AccessKeyId"):
        await asyncio.to_thread(Metadata.opened().keys)


async def test_a_machine_elsewhere_has_no_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(AwsAway, match="does not answer"):
        await asyncio.to_thread(Metadata.opened)


async def missed(service: RunningService, owner: asyncpg.Connection) -> list[str]:
    """The phases that are written down of machines that should have come twenty minutes ago."""
    await owner.execute("UPDATE join_tokens SET created_at = clock() - interval '21 minutes'")
    await Arrivals(service.service.store, service.service.clouds).run_once()
    await Arrivals(service.service.store, service.service.clouds).run_once()
    rows = await owner.fetch("SELECT detail FROM events WHERE kind = 'alert.absent' AND hostname = 'vm-1'")
    return [str(json.loads(row["detail"])["phase"]) for row in rows]


async def test_an_instance_that_does_not_come_is_reported_once(
    service: RunningService, owner: asyncpg.Connection, instance: str
) -> None:
    await invite(owner, instance)

    assert await missed(service, owner) == ["instance: running, and its console says nothing of cloud-init"]


async def test_an_instance_that_is_gone_is_said_to_be_gone(
    service: RunningService, owner: asyncpg.Connection, instance: str
) -> None:
    await invite(owner, instance)
    client_of("ec2").terminate_instances(InstanceIds=[instance])

    assert await missed(service, owner) == ["instance: terminated"]
