"""docs/operations.md is typed from its first block to its last on an installation of its own, and does what it says."""

import re
import shlex
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import boto3
import pytest

from tests.docs.installation import Installation, installation, new_postgresql
from tests.docs.markdown import steps
from tests.support.cloud import REGION, leads_to, moto_server
from tests.support.up import until

pytestmark = pytest.mark.slow

PAGE = "docs/operations.md"
CHANGES = re.compile(r"UPDATE|DELETE|TRUNCATE|lablink vms")
"""What changes a machine, which is not busy any more when the next step is typed."""

GROUP, BUCKET, TOPIC = "/aws/rds/instance/lablink/postgresql", "my-bucket", "alerts"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A stand-in for AWS with the bucket, the log group and the topic that the page names."""
    with moto_server() as url:
        for name, value in leads_to(url).items():
            monkeypatch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        boto3.client("logs").create_log_group(logGroupName=GROUP)
        boto3.client("sns").create_topic(Name=TOPIC)
        yield


def machines_anew(here: Installation) -> None:
    """The machines are invited as the page said before: here they were deleted."""
    for step in [each for each in steps(PAGE) if each.heading == "Machines"][:2]:
        here.follow(step)


def an_old_month(here: Installation) -> None:
    """The first event is of a quarter of a year ago, sealed and in a partition of its own."""
    then = datetime.now(UTC) - timedelta(days=92)
    here.ask(f"INSERT INTO events (actor, kind, at) VALUES ('test', 'test.happened', '{then:%F} 12:00Z')")
    month = f"events_{then:%Y_%m}"
    until(lambda: here.ask(f"SELECT to_regclass('{month}')") == month, month)
    until(lambda: here.ask(f"SELECT settled >= (SELECT max(id) FROM {month}) FROM event_sealing") == "t", "its seal")


def another_server(here: Installation, name: str, port: str) -> None:
    """An empty PostgreSQL with the certificate of the first, whose authority's is in a file."""
    new_postgresql(here.server, name, here.server.bound[port])
    script = f"""
        data=$(sudo -u postgres psql -Atc 'SHOW data_directory')
        cp -p $data/server.crt $data/server.key $ROOT/{name}/postgres/
        echo ssl=on >> $ROOT/{name}/postgres/postgresql.conf
        cp $ROOT/etc/lablink/ca.pem $ROOT/etc/lablink/{name}-ca.pem
        systemctl restart {name}
    """
    here.server.run(script).check_returncode()


def a_lock_held(here: Installation) -> None:
    """Somebody left a transaction open in psql, and somebody else waits for it."""
    change = "UPDATE vms SET reason = reason WHERE hostname = 'vm-1'"
    script = here.server.root / "forgotten.sql"
    script.write_text(f"BEGIN; {change};\nSELECT 1 \\watch 600\n")
    url = here.server.run("lablink db url").stdout.strip()
    here.server.add_unit("forgotten", ExecStart=f"psql {shlex.quote(url)} -f {script}")
    here.server.add_unit("waiting", ExecStart=f"psql {shlex.quote(url)} -c {shlex.quote(change)}")
    here.server.run("systemctl start forgotten").check_returncode()
    idle = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND application_name = 'psql'"
    until(lambda: here.ask(idle) == "1", "a lock")
    here.server.run("systemctl start waiting").check_returncode()


BEFORE: dict[str, Callable[[Installation], None]] = {
    "Machines": an_old_month,
    "A machine out, and back": machines_anew,
    "When the database is lost": partial(another_server, name="spare", port="5434"),
    "A move to another server": partial(another_server, name="new", port="5433"),
    "A stuck lock": a_lock_held,
}
"""What must have happened before one reads on under a heading."""


@pytest.mark.timeout(1800)
def test_whoever_follows_the_page_gets_what_it_says(aws: None) -> None:
    before = dict(BEFORE)
    with installation() as here:
        for step in steps(PAGE):
            if happens := before.pop(step.heading, None):
                happens(here)
            here.follow(step)
            if step.in_table and CHANGES.search(step.text):
                until(here.settled, f"machines to be clean after line {step.line}")
    assert before == {}
