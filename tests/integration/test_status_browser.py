"""The page of all pools in a real browser: how each is, and on demand why."""

import re

import asyncpg
from playwright.async_api import Browser, expect

from tests.support.browser import new_tab
from tests.support.database import Database
from tests.support.service import RunningService

LONG = 3600.0
"""Seconds that a machine which has no client may be lent for: longer than any browser takes to look."""

NEW_REASONS = "the page hears of them when the ones that it shows are five seconds old"


async def spent_and_waiting(owner: asyncpg.Connection) -> None:
    """A pool whose budget is used up, and another that is paused and for members."""
    await owner.execute("UPDATE pools SET price_per_hour = 1, budget = 0.5, max_machines = 3, min_machines = 2")
    await owner.execute("INSERT INTO pools (name, paused, access) VALUES ('gpu', true, 'members')")
    await owner.execute("INSERT INTO groups (name) VALUES ('biology')")
    await owner.execute("INSERT INTO shares (pool, group_name) VALUES ('gpu', 'biology')")


async def test_everybody_reads_why_a_pool_is_as_it_is_and_keeps_it_open_while_the_page_follows(
    service: RunningService, database: Database, owner: asyncpg.Connection, browser: Browser
) -> None:
    await spent_and_waiting(owner)
    tab = await new_tab(browser)
    await tab.page.goto(f"{service.url}/status")
    why = tab.page.locator("#why-default")
    await expect(why.locator("ul")).to_be_hidden()
    await why.locator("summary").focus()
    await tab.page.keyboard.press("Enter")
    await expect(why).to_contain_text("Does not hold: its budget allows another lease: this month's is spent")
    await expect(why).to_contain_text("next: whoever asks is refused")
    await tab.page.locator("#why-gpu summary").press("Enter")
    await expect(tab.page.locator("#why-gpu")).to_contain_text("everybody may ask: who is of a group that has a share")
    await expect(tab.page.locator("body")).not_to_contain_text("biology")
    await tab.check()

    await database.age(await database.vm("vm-1"), -LONG)

    await expect(tab.page.locator(".pool-status", has_text="default")).to_contain_text("1 of 1 machines is free")
    await expect(why.locator("ul")).to_be_visible()
    await expect(tab.page.locator("#why-gpu summary")).to_be_focused()
    await expect(why, NEW_REASONS).to_contain_text("a machine is free: 1 free")


async def test_without_javascript_it_opens_as_well(
    service: RunningService, owner: asyncpg.Connection, browser: Browser
) -> None:
    await spent_and_waiting(owner)
    tab = await new_tab(browser, java_script_enabled=False)
    await tab.page.goto(f"{service.url}/status")
    why = tab.page.locator("#why-gpu")
    await expect(why.locator("ul")).to_be_hidden()

    await why.locator("summary").press("Enter")

    await expect(why).to_contain_text(re.compile("its pool is not paused: paused for .*; nobody's time to wait passes"))
