"""`python -m tests.support.patient_command …` is `lablink …` that has a longer patience with PostgreSQL."""

import os
import sys
from collections.abc import Mapping
from importlib import import_module

CONNECT_SECONDS, GIVE_UP_AFTER = "LABLINK_TEST_CONNECT_SECONDS", "LABLINK_TEST_GIVE_UP_AFTER"
"""In the environment of a command: how long it waits for a connection, and for a lock."""

LIMITS = {
    "allocator.cli.database.CONNECT_SECONDS": (CONNECT_SECONDS, 30.0),
    "allocator.cli.db.trial.CONNECT_SECONDS": (CONNECT_SECONDS, 30.0),
    "allocator.cli.diagnosis.READY_SECONDS": (None, 30.0),
    "allocator.upkeep.way_in.SECONDS": (CONNECT_SECONDS, 30.0),
    "allocator.cli.database.STATEMENT_SECONDS": (None, 60.0),
    "allocator.cli.waiting.GIVE_UP_AFTER": (GIVE_UP_AFTER, 30.0),
}


def make_patient(environment: Mapping[str, str]) -> None:
    """Commands of this process wait for so long, or for as long as their environment says."""
    for limit, (variable, seconds) in LIMITS.items():
        module, _, name = limit.rpartition(".")
        setattr(import_module(module), name, float(environment.get(variable or "", seconds)))


if __name__ == "__main__":
    make_patient(os.environ)
    sys.argv[0] = "lablink"
    import_module("allocator.cli").main()
