"""`lablink rehearse`, as somebody types it."""

import asyncio
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support import LIMIT_SECONDS
from tests.support.admin import answer, lablink, place
from tests.support.database import PASSWORDS, Database
from tests.support.up import LABLINK, until

SMALL = ("rehearse", "--people", "6", "--machines", "3", "--boot", "20s", "--use", "5m")
LARGE = ("rehearse", "--people", "2000", "--machines", "400")
SCRATCH = "SELECT count(*) FROM pg_database WHERE datname LIKE '%\\_rehearsal\\_%'"


def begun(arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    """The command under way."""
    return subprocess.Popen(
        [LABLINK, *arguments],
        env=os.environ | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def interrupted(process: subprocess.Popen[str], by: signal.Signals = signal.SIGINT) -> tuple[int, str]:
    """How it ends after Ctrl-C, and what it said."""
    process.send_signal(by)
    said, complained = process.communicate(timeout=LIMIT_SECONDS)
    return process.returncode, said + complained


async def test_it_prints_figures_and_pictures_that_fit_a_terminal_and_leaves_nothing(database: Database) -> None:
    done = await lablink(database, *SMALL)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert any(line.split() == ["had", "a", "machine", "6", "of", "6"] for line in lines)
    assert {"waiting", "lent"} <= set(lines)
    assert max(map(len, lines)) <= 80
    owner = await database.connect()
    assert await owner.fetchval(SCRATCH) == 0
    assert await owner.fetchval("SELECT count(*) FROM leases") == 0


async def test_as_json_it_has_the_series(database: Database) -> None:
    came = await answer(database, *SMALL)
    assert len(came["waits"]) == 6 and came["groups"] == {}
    assert {"seconds", "waiting", "lent", "up"} == set(came["course"][0])
    assert max(moment["lent"] for moment in came["course"]) == 3


async def test_with_groups_it_prints_how_long_each_waited(database: Database) -> None:
    played = await lablink(database, *SMALL, "--groups", "2")
    groups = [line.split() for line in played.stdout.splitlines() if "group-" in line]
    assert [(name, int(served)) for name, served, *_ in groups] == [("group-1", 5), ("group-2", 1)]
    assert max(map(len, played.stdout.splitlines())) <= 80
    came = await answer(database, *SMALL, "--groups", "2")
    assert {name: len(waits) for name, waits in came["groups"].items()} == {"group-1": 5, "group-2": 1}


async def test_a_pool_is_rehearsed_with_its_terms_and_an_unknown_one_named(database: Database) -> None:
    owner = await database.connect()
    await owner.execute("UPDATE pools SET lease_seconds = 120")
    played = await lablink(database, *SMALL, "--forgetting", "100", "--pool", "default", "--json")
    assert json.loads(played.stdout)["waits"][-1] <= 200
    assert "leases (0) and boots (0)" in played.stderr
    unknown = await lablink(database, *SMALL, "--pool", "gpu")
    assert (unknown.returncode, unknown.stderr) == (4, "There is no pool gpu. Pools: default\n")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--lease", "0s"), "--lease is 1s at least and 7d at most."),
        (("--away", "8d"), "--away is 0s at least and 7d at most."),
        (("--arrive", "60"), "60 is no length of time"),
    ],
)
async def test_a_time_that_no_workshop_takes_is_refused_in_words(
    database: Database, option: tuple[str, str], said: str
) -> None:
    refused = await lablink(database, *SMALL, *option)
    assert refused.returncode == 2 and refused.stderr.startswith(said)


async def test_a_rehearsal_that_is_interrupted_leaves_no_database(database: Database) -> None:
    owner = await database.connect()
    process = begun([*LARGE, *place(database.dsn("lablink"))], OWNER=PASSWORDS["lablink"], SERVICE="")
    async with asyncio.timeout(LIMIT_SECONDS):
        while await owner.fetchval(SCRATCH) == 0:
            assert process.poll() is None
    code, _ = await asyncio.to_thread(interrupted, process)
    assert code == 130
    assert await owner.fetchval(SCRATCH) == 0


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_without_any_database_it_has_a_server_of_its_own_which_is_gone_when_it_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: signal.Signals
) -> None:
    monkeypatch.chdir(tmp_path)
    process = begun([*LARGE], TMPDIR=str(tmp_path))
    until(lambda: list(tmp_path.glob("lablink-rehearsal-*/postgres/postmaster.pid")), "a server")
    code, said = interrupted(process, by)
    assert (code, said) == (130, "")
    assert list(tmp_path.iterdir()) == []
