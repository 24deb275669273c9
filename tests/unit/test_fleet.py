"""What is counted and read about machines in the cloud without asking anybody."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from allocator.config import load_settings
from allocator.fleet.cost import costs, priced, total
from allocator.fleet.limits import quota_of
from allocator.fleet.refusals import StateLocked
from tests.support.fleet import fleet_without_cloud

LOCK = """Error acquiring the state lock Error message: operation error S3: PutObject
Lock Info:
  ID:        6f4c0861-4939-4b02-e2ef-7cd6f714bd4b
  Path:      states/fleet/terraform.tfstate
  Operation: OperationTypeApply
  Who:       root@allocator
  Version:   1.11.4
  Created:   2026-11-21 22:58:38.521399568 +0000 UTC
  Info:
"""
AT = datetime(2026, 11, 21, 22, 58, 38, tzinfo=UTC).timestamp()


def row(pool: str, kind: str | None, instance: str | None = "i-1") -> dict[str, str | None]:
    return {"pool": pool, "instance_type": kind, "instance_id": instance}


def test_machines_cost_what_their_types_cost_by_pool_and_only_those_that_are_there() -> None:
    rows = [row("default", None), row("default", "t3.large"), row("gpu", "g5.xlarge"), row("gpu", "g5.xlarge", None)]
    found = costs(rows, "t3.large", {"t3.large": 0.1})
    assert [(each.pool, each.vms, each.hour, each.month) for each in found] == [
        ("default", 2, 0.2, 146.0),
        ("gpu", 1, None, None),
    ]
    assert (total(found).vms, total(found).hour, total(found).month) == (3, 0.2, 146.0)


@pytest.mark.parametrize(
    ("overrides", "price"),
    [
        ([], "0.1"),
        (["pool.price_per_hour=0.5"], "0.5"),
        (["pool.price_per_hour=0"], "0"),
        (["pool.currency=EUR"], "None"),
        (["fleet.currency=EUR", "pool.currency=EUR"], "0.1"),
        (["fleet.prices={g5.xlarge: 1.006}"], "None"),
        (["fleet.settings=null"], "None"),
    ],
)
def test_a_pool_without_a_price_has_that_of_the_fleets_default_type(
    tmp_path: Path, overrides: list[str], price: str
) -> None:
    settings = load_settings([*fleet_without_cloud(tmp_path), *overrides])

    assert str(priced(settings.pool, settings.fleet).price_per_hour) == price


@pytest.mark.parametrize(
    ("kind", "family"),
    [("t3.large", "Standard"), ("g5.xlarge", "G and VT"), ("gr6.4xlarge", "G and VT"), ("p4d.24xlarge", "P"),
     ("m7i-flex.large", "Standard"), ("inf2.xlarge", "Inf"), ("hpc7a.96xlarge", "HPC"), ("u-6tb1.metal", "high memory"),
     ("x2idn.16xlarge", "X"), ("mac2.metal", "Standard"), ("im4gn.large", "Standard")],
)  # fmt: skip
def test_each_type_counts_for_the_quota_of_its_family(kind: str, family: str) -> None:
    assert quota_of(kind)[1].startswith(family)


@pytest.mark.parametrize(
    ("host", "begun", "ours"),
    [("allocator", AT, True), ("allocator", AT - 60, True), ("laptop", AT, False), ("allocator", AT + 60, False),
     ("allocator", AT - 3600, False)],
)  # fmt: skip
def test_a_lock_is_our_own_when_it_was_made_here_by_the_run_that_was_killed(
    host: str, begun: float, ours: bool
) -> None:
    locked = StateLocked("plan", LOCK)
    assert locked.lock == "6f4c0861-4939-4b02-e2ef-7cd6f714bd4b"
    assert locked.is_of(host, begun) is ours


def test_a_lock_that_says_nothing_is_nobodys() -> None:
    assert not StateLocked("plan", "Error acquiring the state lock").is_of("", 0)


def test_a_service_starts_without_what_only_a_fleet_needs() -> None:
    program = "import sys, allocator.server; print({'boto3', 'python_terraform'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"
