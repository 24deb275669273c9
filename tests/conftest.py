"""Fixtures for everybody: a PostgreSQL server for the session and a fresh, migrated database for each test."""

import os
import signal
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import count

import pytest
import pytest_asyncio

from tests.support import service
from tests.support.database import WORKER, Database, cloned_database, migrated_template
from tests.support.patience import make_patient, patient_role
from tests.support.pooler import pooler_before
from tests.support.server import TestServer, found_server

SLOW = {"images", "replicas", "terraform"}
LONG_SECONDS = 240.0

USUAL = {"usual_limits", "usual_wait_for_locks"}
"""What tests ask for that are about the limits of a service."""

_numbers = count()


@pytest.fixture(scope="session", autouse=True)
def patience() -> Iterator[pytest.MonkeyPatch]:
    """No test fails because a process got no computer for seconds; who asks for `usual_limits` has them."""
    with pytest.MonkeyPatch.context() as patch:
        make_patient(patch)
        yield patch


@pytest.fixture
def usual_limits(patience: pytest.MonkeyPatch) -> Iterator[None]:
    """The limits of a service are the product's own: this test is about them."""
    patience.undo()
    yield
    make_patient(patience)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server() -> AsyncIterator[TestServer]:
    """A PostgreSQL server; see tests/support/server.py for which one. With LABLINK_TEST_POOLER, PgBouncer before it."""
    async with AsyncExitStack() as opened:
        found = await opened.enter_async_context(found_server())
        if os.environ.get("LABLINK_TEST_POOLER"):
            pooler = await opened.enter_async_context(pooler_before(found))
            found = replace(found, pooler_port=pooler.port)
        yield found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def template(server: TestServer) -> AsyncIterator[str]:
    """The name of a migrated database to clone."""
    async with migrated_template(server) as name:
        yield name


@pytest_asyncio.fixture
async def database(server: TestServer, template: str, request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """A migrated database of this test's own, whose time zone is not UTC."""
    async with cloned_database(server, template, f"lablink_test_{WORKER}_{next(_numbers)}") as own:
        if server.pooler_port and not USUAL & set(request.fixturenames):
            await patient_role(own)
        yield own


def pytest_configure() -> None:
    """Started in the background by a shell, this process ignores Ctrl-C, and so would everything that a test starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: a third of the time a test waits for something."""
    return 1 + (os.cpu_count() or 1)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None, None, None]:
    """Marks what needs a PostgreSQL (`-m postgresql`: on other versions), what is slow, what runs a service."""
    for item in items:
        if item.path.parent.name in SLOW:
            item.add_marker("slow")
        if "server" in getattr(item, "fixturenames", ()):
            item.add_marker("postgresql")
        if _runs_a_service(item):
            item.add_marker("service")
    yield
    if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
        items[:] = _longest_first(items, workers)


def _runs_a_service(item: pytest.Item) -> bool:
    """Whether a fixture of it does, or what its module uses of tests/support/service.py."""
    used = vars(getattr(item, "module", None) or object).values()
    fixtures = {"service", "api_service"}.intersection(getattr(item, "fixturenames", ()))
    return bool(fixtures) or any(getattr(one, "__module__", "") == service.__name__ for one in used)


def _longest_first(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """What may take far longer than others comes first in each worker's share: none is left alone at the end."""
    long = sorted((item for item in items if _limit(item) > LONG_SECONDS), key=_limit, reverse=True)
    others = [item for item in items if _limit(item) <= LONG_SECONDS]
    share = -(-len(others) // workers)
    return [
        item
        for worker in range(workers)
        for item in (*long[worker::workers], *others[worker * share : (worker + 1) * share])
    ]


def _limit(item: pytest.Item) -> float:
    """How many seconds a test may take where it says so; else 0."""
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker else 0.0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where everything is installed (CI), a test that skips itself has failed: it proved nothing."""
    report = yield
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and nothing may be in CI: {report.longrepr}"
    return report
