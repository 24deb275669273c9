"""`lablink db watch-logs`: what RDS logs is read from CloudWatch, and what is suspicious in it is told by SNS, once."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from allocator.upkeep.watch_logs import LINES, QUIET_MS, Suspicion, Watcher, grouped, message, subject, suspicions
from tests.support.cloud import leads_to, moto_server
from tests.support.up import run_lablink

GROUP, STREAM = "/aws/rds/instance/lablink/postgresql", "lablink.0"
PREFIX = "2026-11-21 10:30:00 UTC:10.0.0.5(53422):{who}@lablink_db:[1234]:"


def line(text: str, who: str = "lablink_app") -> str:
    """A line as RDS writes it."""
    return PREFIX.format(who=who) + text


def kinds(text: str) -> list[str]:
    return [each.kind for each in suspicions([{"message": line(text), "timestamp": 1, "eventId": "1"}])]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('FATAL:  password authentication failed for user "lablink"', "failed login"),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.9", user "x", database "y", no encryption', "failed login"),
        ("ERROR:  permission denied for table lease_secrets", "permission denied"),
        ("ERROR:  must be owner of table vms", "permission denied"),
        ("LOG:  statement: ALTER ROLE lablink_app SUPERUSER", "superuser"),
        ("LOG:  statement: GRANT rds_superuser TO somebody", "superuser"),
        ("LOG:  statement: SET session_replication_role = 'replica'", "superuser"),
        ("LOG:  statement: SELECT * FROM lease_secrets", "secrets read"),
        ("LOG:  statement: create user eve", "role changed"),
        ("LOG:  AUDIT: SESSION,1,1,ROLE,DROP ROLE,,,DROP ROLE eve,<none>", "role changed"),
        ("LOG:  statement: GRANT SELECT ON vms TO PUBLIC", "grant changed"),
        ("LOG:  duration: 3.1 ms  statement: DROP TABLE events", "dropped"),
        ("LOG:  statement: TRUNCATE TABLE vms;", "dropped"),
        ("LOG:  statement: ALTER TABLE vms DISABLE TRIGGER ALL", "dropped"),
        ("LOG:  execute <unnamed>: DELETE FROM leases", "mass delete"),
        ('LOG:  statement: delete from public."leases";', "mass delete"),
    ],
)
def test_what_is_suspicious_is_recognised(text: str, kind: str) -> None:
    assert kinds(text) == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "LOG:  connection authorized: user=lablink_app database=lablink_db SSL enabled",
        "LOG:  statement: DELETE FROM leases WHERE id = 1",
        "LOG:  statement: SELECT 'GRANT ALL ON vms; DROP TABLE vms'",
        "LOG:  statement: ALTER TABLE vms ADD COLUMN superuser_of text",
        "ERROR:  duplicate key value violates unique constraint",
        "LOG:  checkpoint complete: wrote 12 buffers (0.1%)",
        "STATEMENT:  DROP TABLE vms",
    ],
)
def test_what_is_innocent_is_not(text: str) -> None:
    assert kinds(text) == []


def test_a_line_that_is_not_postgresqls_is_passed_over() -> None:
    assert list(suspicions([{"message": "DROP TABLE vms", "timestamp": 1, "eventId": "1"}])) == []


def test_no_literal_and_no_address_is_told() -> None:
    statement = line("LOG:  statement: ALTER ROLE eve PASSWORD 'hunter2'")
    denied = line('ERROR:  permission denied for schema "ada@example.org"')
    found = [*suspicions([{"message": text, "timestamp": 1} for text in (statement, denied)])]
    told = message(found, GROUP) + subject(found)
    assert "role changed, once: lablink_app from 10.0.0.5: ALTER ROLE eve PASSWORD '…'" in told
    assert "hunter2" not in told
    assert "ada@" not in told


def test_the_same_thing_is_listed_once_with_its_count_and_a_long_list_is_cut() -> None:
    same = [Suspicion("dropped", "eve", "DROP TABLE x", at, at, STREAM) for at in (3, 1, 2)]
    assert grouped(same) == [Suspicion("dropped", "eve", "DROP TABLE x", 1, 3, STREAM, 3)]
    many = [Suspicion("dropped", "eve", f"DROP TABLE t{number}", 1, 1, STREAM) for number in range(LINES + 7)]
    assert "… and 7 more." in message(many, GROUP)
    assert len(subject(many)) <= 100


@dataclass
class Cloud:
    """A log group that is written, and a topic whose messages can be read."""

    logs: Any
    sns: Any
    sqs: Any
    topic: str
    queue: str

    def write(self, *texts: str, at: int | None = None) -> None:
        """Log these lines now, or at a time in milliseconds."""
        at = at or int(time.time() * 1000)
        events = [{"timestamp": at, "message": line(text)} for text in texts]
        self.logs.put_log_events(logGroupName=GROUP, logStreamName=STREAM, logEvents=events)

    def told(self) -> list[str]:
        """The messages since the last time."""
        found = self.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get("Messages", [])
        for each in found:
            self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=each["ReceiptHandle"])
        return [json.loads(each["Body"])["Message"] for each in found]

    def watcher(self, file: Path) -> Watcher:
        return Watcher(self.logs, self.sns, GROUP, self.topic, file)


def a_cloud() -> Cloud:
    """What a watch needs, in whichever stand-in for AWS there is."""
    logs, sns, sqs = boto3.client("logs"), boto3.client("sns"), boto3.client("sqs")
    logs.create_log_group(logGroupName=GROUP)
    logs.create_log_stream(logGroupName=GROUP, logStreamName=STREAM)
    topic, queue = sns.create_topic(Name="alerts")["TopicArn"], sqs.create_queue(QueueName="alerts")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    return Cloud(logs, sns, sqs, topic, queue)


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with mock_aws():
        yield a_cloud()


DENIED = "ERROR:  permission denied for table lease_secrets"
DROPPED = "LOG:  statement: DROP TABLE events"


async def test_one_message_tells_all_of_one_look(cloud: Cloud, tmp_path: Path) -> None:
    cloud.write(DENIED, DENIED, DROPPED, "LOG:  checkpoint starting: time")
    await cloud.watcher(tmp_path / "state").look(0)
    (told,) = cloud.told()
    assert "permission denied, 2 times: lablink_app from 10.0.0.5" in told
    assert "dropped, once" in told
    assert GROUP in told


async def test_nothing_suspicious_tells_nobody(cloud: Cloud, tmp_path: Path) -> None:
    cloud.write("LOG:  checkpoint starting: time")
    assert await cloud.watcher(tmp_path / "state").look(0) == []
    assert cloud.told() == []


async def test_it_goes_on_where_it_was_also_in_another_process(cloud: Cloud, tmp_path: Path) -> None:
    cloud.write(DENIED)
    await cloud.watcher(tmp_path / "state").look(0)
    assert len(cloud.told()) == 1
    cloud.write(DROPPED)
    await cloud.watcher(tmp_path / "state").look(0)
    (told,) = cloud.told()
    assert "permission denied" not in told


async def test_a_line_that_came_late_is_told_as_well(cloud: Cloud, tmp_path: Path) -> None:
    now = int(time.time() * 1000)
    cloud.write(DENIED, at=now)
    await cloud.watcher(tmp_path / "state").look(0)
    cloud.told()
    cloud.write(DROPPED, at=now - 60_000)
    await cloud.watcher(tmp_path / "state").look(0)
    assert "dropped" in cloud.told()[0]


async def test_what_goes_on_is_told_again_after_an_hour_and_not_before(cloud: Cloud, tmp_path: Path) -> None:
    begin = int(time.time() * 1000) - 2 * QUIET_MS
    told = []
    for at in (begin, begin + QUIET_MS // 2, begin + QUIET_MS):
        cloud.write(DENIED, at=at)
        told.append(len(await cloud.watcher(tmp_path / "state").look(0)))
    assert told == [1, 0, 1]


async def test_what_could_not_be_told_is_told_by_the_next_look(cloud: Cloud, tmp_path: Path) -> None:
    cloud.write(DENIED)
    lost = Watcher(cloud.logs, cloud.sns, GROUP, f"{cloud.topic}-that-is-not-there", tmp_path / "state")
    with pytest.raises(cloud.sns.exceptions.NotFoundException):
        await lost.look(0)
    await cloud.watcher(tmp_path / "state").look(0)
    assert len(cloud.told()) == 1


async def test_the_first_look_goes_back_as_far_as_it_is_told(cloud: Cloud, tmp_path: Path) -> None:
    now = int(time.time() * 1000)
    cloud.write(DENIED, at=now - 3_600_000)
    assert await cloud.watcher(tmp_path / "state").look(now - 900_000) == []


async def test_a_state_that_is_not_whole_is_begun_anew(cloud: Cloud, tmp_path: Path) -> None:
    (tmp_path / "state").write_text('{"read_ms": 1')
    cloud.write(DENIED)
    assert len(await cloud.watcher(tmp_path / "state").look(0)) == 1
    assert json.loads((tmp_path / "state").read_text())["read_ms"] > 0


async def test_many_lines_are_read_page_by_page(cloud: Cloud, tmp_path: Path) -> None:
    for batch in range(12):
        cloud.write(*(f"ERROR:  permission denied for table t{batch}_{number}" for number in range(1000)))
    assert len(await cloud.watcher(tmp_path / "state").look(0)) == 12_000


def test_the_command_looks_once_tells_and_remembers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with moto_server() as url:
        for name, value in (leads_to(url) | {"XDG_STATE_HOME": str(tmp_path)}).items():
            monkeypatch.setenv(name, value)
        cloud = a_cloud()
        cloud.write(DENIED)
        arguments = ["db", "watch-logs", "--log-group", GROUP, "--topic", cloud.topic, "--once"]

        first, second = run_lablink(*arguments), run_lablink(*arguments)
        nowhere = run_lablink("db", "watch-logs", "--log-group", "/nowhere", "--topic", cloud.topic, "--once")

    assert first.stdout.startswith("permission denied, once: lablink_app from 10.0.0.5"), first.stderr
    assert second.stdout.strip() == "Nothing suspicious."
    assert len(list(tmp_path.glob("lablink/watch-logs-*.json"))) == 1
    assert nowhere.returncode == 1
    assert nowhere.stderr.startswith("AWS refused, and nothing is lost")
