"""The main job as a person sees it: `lablink up`, a browser, the form, and a machine that becomes theirs."""

import json
import os
import re
import signal
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.support.browser import Tab, chromium, new_tab
from tests.support.service import DESKTOP_LINE
from tests.support.up import RunningUp

LIMIT_MS = 60_000.0

pytestmark = pytest.mark.timeout(240)


@pytest_asyncio.fixture
async def browser(up: RunningUp) -> AsyncIterator[Browser]:
    """A browser of this test's own; whatever was asked for in it is given back."""
    async with chromium() as browser:
        yield browser
    for lease in up.json("leases", "list"):
        up.lablink("leases", "end", lease["id"])


async def ask(tab: Tab, url: str, line: str) -> str:
    """Fill in the form as somebody new and send it; returns their address."""
    email = f"{uuid4()}@example.org"
    await tab.ask(url, line, email)
    return email


async def give_back(tab: Tab) -> None:
    """End the lease on the page."""
    await tab.page.get_by_text("Give the machine back …").click()
    await tab.page.get_by_role("button", name="Give the machine back now").click()
    await tab.shows("This lease is over")


async def test_a_desktop_asked_for_in_the_browser_becomes_ready(up: RunningUp, browser: Browser) -> None:
    tab = await new_tab(browser)
    email = await ask(tab, up.url, DESKTOP_LINE)

    await tab.shows("Your machine is ready")
    await expect(tab.page.locator(".pin")).to_have_text(re.compile(r"\d{8}"))
    await expect(tab.page.locator("pre")).to_contain_text("Host started successfully.")
    await tab.check()

    lease = next(each for each in up.json("leases", "list") if each["email"] == email)
    vm = next(each for each in up.json("vms", "list") if each["hostname"] == lease["hostname"])
    events = map(json.loads, up.lablink("events", "--json").stdout.splitlines())
    kinds = [event["kind"] for event in events if event["lease_id"] == lease["id"]]
    await expect(tab.page.locator(".plate strong")).to_have_text(lease["hostname"])
    assert (lease["status"], vm["status"], vm["email"]) == ("active", "in-use", email)
    assert [kind for kind in kinds if kind.startswith("lease.")] == [
        "lease.assigned",
        "lease.claimed",
        "lease.active",
    ]
    await give_back(tab)


async def test_a_program_asked_for_in_the_browser_has_run(up: RunningUp, browser: Browser) -> None:
    tab = await new_tab(browser)
    await ask(tab, up.url, "python3 -c 'print(6 * 7)'")

    await tab.shows("Your command is done")
    await expect(tab.page.locator("pre")).to_have_text("42")
    await give_back(tab)


async def test_more_people_than_machines_wait_in_order_and_move_up_by_themselves(
    up: RunningUp, browser: Browser
) -> None:
    tabs = [await new_tab(browser) for _ in range(5)]
    for tab in tabs[:3]:
        await ask(tab, up.url, "sleep 600")
        await tab.shows("Your command is running")
    for tab, heading in zip(tabs[3:], ["You are next in line", "You are 2nd in line"], strict=True):
        await ask(tab, up.url, "echo hi")
        await tab.shows(heading)

    await give_back(tabs[0])

    await tabs[3].shows("Your command is done")
    await tabs[4].shows("You are next in line")
    for tab in (tabs[1], tabs[2], tabs[3]):
        await give_back(tab)
    await tabs[4].shows("Your command is done")
    await give_back(tabs[4])


async def test_the_page_says_when_the_allocator_is_frozen_or_gone_and_when_it_is_back(
    up: RunningUp, browser: Browser
) -> None:
    tab = await new_tab(browser)
    await ask(tab, up.url, "echo hi")
    await tab.shows("Your command is done")
    notice = tab.page.get_by_text("Not connected; trying again …")
    await expect(notice).to_have_count(0)

    allocator = up.child("lablink serve")
    for sign, frozen in ((signal.SIGSTOP, allocator), (signal.SIGKILL, up.process.pid)):
        os.kill(frozen, signal.SIGSTOP)  # whoever is killed comes back when `up` goes on, and not before it was missed
        try:
            os.kill(allocator, sign)
            await expect(notice).to_be_visible(timeout=LIMIT_MS)
        finally:
            os.kill(frozen, signal.SIGCONT)
        await expect(notice).to_have_count(0, timeout=LIMIT_MS)

    await give_back(tab)
