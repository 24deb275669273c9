"""What of a machine's words is read before they are passed on."""

import json
from uuid import UUID

import pytest

from allocator.said import Said

LEASE = "5b0ba0b4-3d9c-4c37-8a7b-0d8a2d2c2d11"
PLAIN = {"verb": "report", "lease_id": LEASE, "epoch": 3, "outcome": "exited", "exit_code": 0, "output": "hé 😀\n"}


def said(**other: object) -> Said:
    return Said.of(json.dumps(PLAIN | other))


def test_a_plain_report_is_read_as_the_database_takes_it() -> None:
    for more in ({}, {"failure": None, "kind": "job", "new": 1}):
        assert said(**more).plain_report() == (UUID(LEASE), 3, "exited", 0, "hé 😀\n", None)
    started = said(outcome="started", exit_code=None, output="", failure="timed-out")
    assert started.plain_report() == (UUID(LEASE), 3, "started", None, "", "timed-out")


@pytest.mark.parametrize(
    "odd",
    [
        {"lease_id": None},
        {"lease_id": "x"},
        {"epoch": "3"},
        {"epoch": -1},
        {"epoch": 2**63},
        {"epoch": True},
        {"outcome": "danced"},
        {"exit_code": None},
        {"exit_code": 2**31},
        {"exit_code": 0.5},
        {"output": None},
        {"output": "\0"},
        {"output": "\ud800"},
        {"output": "x" * 2001},
        {"failure": "Because."},
        {"failure": "x" * 41},
    ],
)
def test_a_report_that_might_spoil_others_is_not_plain(odd: dict[str, object]) -> None:
    assert said(**odd).plain_report() is None
