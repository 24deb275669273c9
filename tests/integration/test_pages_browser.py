"""The pages in a real browser: readable by everybody in every state, on a phone and in the dark; they follow."""

import asyncio
import re

import pytest
from playwright.async_api import Browser, expect

from tests.support import LIMIT_SECONDS
from tests.support.browser import new_tab
from tests.support.database import Database
from tests.support.service import DESKTOP_LINE, PlayedClient, RunningService

pytestmark = pytest.mark.usefixtures("no_time_passes")


async def look_now(database: Database) -> None:
    """Have every page looked at, as happens within ten seconds: of a claim nobody is told."""
    await (await database.connect()).execute("SELECT pg_notify('lease_updates', '')")


async def test_a_job_from_the_form_to_its_end_reads_well_in_every_state(
    service: RunningService, database: Database, browser: Browser
) -> None:
    tab = await new_tab(browser)
    await tab.page.goto(service.url)
    await tab.check()
    await tab.ask(service.url, "python3 -c 'print(42)'")
    await tab.shows("You are next in line")
    await tab.check()
    machine = await PlayedClient.of(await database.vm("vm-1"))
    await tab.shows("vm-1 is yours")
    await tab.check()
    await machine.claim()
    await look_now(database)
    await tab.shows("vm-1 is starting your command")
    await tab.check()
    await machine.report("started")
    await tab.shows("Your command is running")
    await machine.report("exited", 1, "Traceback (most recent call last):\n" + "x" * 300 + "\n")
    await tab.shows("Your command failed")
    await tab.check()
    await tab.page.get_by_text("Give the machine back …").click()
    await tab.check()
    await tab.page.get_by_role("button", name="Give the machine back now").click()
    await tab.shows("This lease is over")
    await tab.check()


async def test_a_desktop_that_is_ready_and_one_that_failed_read_well(
    service: RunningService, database: Database, browser: Browser
) -> None:
    tab = await new_tab(browser)
    machine = await PlayedClient.of(await database.vm("a-machine-with-a-rather-long-name.cluster-7.example.org"))
    await tab.ask(service.url, DESKTOP_LINE)
    await tab.shows("is yours")
    await machine.claim()
    await look_now(database)
    await tab.shows("is starting your command")
    await tab.check()
    await machine.report("exited", 0, "Host started successfully.\n")
    await tab.shows("Your machine is ready")
    await expect(tab.page.locator(".pin")).to_have_text(re.compile(r"\d{8}"))
    await tab.check()
    await tab.page.get_by_text("Give the machine back …").click()
    await tab.page.get_by_role("button", name="Give the machine back now").click()
    await tab.shows("This lease is over")
    await machine.clean()
    await tab.ask(service.url, DESKTOP_LINE)
    await tab.shows("is yours")
    await machine.claim()
    await machine.report("failed", 1, "OAuth error.\n", "code-used")
    await tab.shows("is kept for you")
    await tab.check()
    await tab.page.get_by_label("Fresh line").fill("echo hi")
    await tab.page.get_by_role("button", name="Go on").click()
    await expect(tab.page.get_by_label("Fresh line")).to_have_attribute("aria-invalid", "true")
    await tab.check()
    await tab.page.get_by_label("Fresh line").fill(DESKTOP_LINE)
    await tab.page.get_by_role("button", name="Go on").click()
    await tab.shows("is yours")
    await machine.claim()
    await machine.report("failed", 1, "No such host.\n", "command-failed")
    await tab.shows("That did not work")
    await tab.check()
    await tab.page.get_by_role("button", name="Ask again").click()
    await expect(tab.page.get_by_label("Your e-mail")).to_have_value("ada@example.org")


async def test_refusals_and_pages_that_are_not_there_read_well(service: RunningService, browser: Browser) -> None:
    tab = await new_tab(browser)
    await tab.ask(service.url, "rm -rf /", email="ada@home")
    await expect(tab.page.get_by_role("alert")).to_contain_text("Please check")
    field = tab.page.get_by_label("Your e-mail")
    await expect(field).to_be_focused()
    await expect(field).to_have_accessible_description(re.compile("The part after the @"))
    await tab.check()
    await tab.page.goto(f"{service.url}/leases/00000000-0000-0000-0000-000000000000")
    await tab.shows("This page is not open to you")
    await tab.check()
    await tab.page.goto(f"{service.url}/nothing")
    await tab.shows("Not Found")
    await tab.check()


async def test_the_page_says_aloud_what_changes_and_its_tab_shows_it(
    service: RunningService, database: Database, browser: Browser
) -> None:
    tab = await new_tab(browser)
    await tab.ask(service.url, "echo hi")
    await tab.shows("You are next in line")
    await database.vm("vm-1")

    await expect(tab.page.locator("[sse-swap=announcement]")).to_have_text(
        "vm-1 is yours. We are telling it about your command."
    )
    await expect(tab.page).to_have_title("vm-1 is yours · LabLink")


async def test_the_keyboard_alone_is_enough(service: RunningService, database: Database, browser: Browser) -> None:
    tab = await new_tab(browser)
    machine = await PlayedClient.of(await database.vm("vm-1"))
    await tab.page.goto(service.url)
    keys = tab.page.keyboard
    await keys.press("Tab")
    await expect(tab.page.get_by_text("Skip to the page")).to_be_focused()
    await keys.press("Enter")
    await expect(tab.page).to_have_url(f"{service.url}/#main")
    await keys.press("Tab")
    await keys.type("ada@example.org")
    await keys.press("Tab")
    await keys.type("echo hi")
    await keys.press("Tab")
    await keys.press("Enter")
    await tab.shows("vm-1 is yours")
    await machine.claim()
    await machine.report("started")
    await tab.shows("Your command is running")
    for name in ("Skip to the page", "LabLink", "Machines", "API", "Keep it until", "Give the machine back …"):
        await keys.press("Tab")
        await expect(tab.page.locator(":focus")).to_have_text(re.compile(name))
    await keys.press("Enter")
    await keys.press("Tab")
    await expect(tab.page.locator(":focus")).to_have_text("Give the machine back now")
    await keys.press("Enter")
    await tab.shows("This lease is over")


async def test_what_is_open_focused_and_scrolled_stays_so_when_the_page_follows(
    service: RunningService, database: Database, browser: Browser
) -> None:
    tab = await new_tab(browser)
    machine = await PlayedClient.of(await database.vm("vm-1"))
    await tab.ask(service.url, "echo hi")
    await tab.shows("vm-1 is yours")
    await machine.claim()
    await machine.report("started")
    await tab.shows("Your command is running")
    await tab.page.get_by_text("Give the machine back …").click()
    button = tab.page.get_by_role("button", name="Give the machine back now")
    await button.focus()

    await machine.report("exited", 0, "line\n" * 200)
    await tab.shows("Your command is done")
    await expect(button).to_be_focused()
    await tab.page.locator("pre").evaluate("pre => { pre.scrollTop = 300 }")
    owner = await database.connect()
    await database.age(await owner.fetchval("SELECT id FROM leases"), 7200)
    await owner.execute("UPDATE leases SET exit_code = 1")

    await tab.shows("Your command failed")
    await expect(button).to_be_visible()
    await expect(button).to_be_focused()
    assert await tab.page.locator("pre").evaluate("pre => pre.scrollTop") == 300


async def test_a_page_whose_lease_is_over_does_not_offer_to_come_back(
    service: RunningService, browser: Browser
) -> None:
    tab = await new_tab(browser)
    await tab.ask(service.url, "echo hi")
    await tab.shows("You are next in line")
    same = await tab.context.new_page()
    await same.goto(tab.page.url)
    await expect(tab.page.get_by_text("Come back to it")).to_be_visible()

    await same.get_by_role("button", name="Leave the queue").click()

    await tab.shows("This request was cancelled")
    await expect(tab.page.get_by_text("Come back to it")).to_have_count(0)
    await expect(tab.page.locator(".lead")).to_have_text("You gave it up before it was ready.")


async def test_whoever_asks_again_is_told_that_nothing_new_was_started(
    service: RunningService, browser: Browser
) -> None:
    tab = await new_tab(browser)
    await tab.ask(service.url, "echo hi")
    await tab.shows("You are next in line")

    await tab.ask(service.url, "echo something else")

    said = tab.page.get_by_role("alert").filter(has_text="what you sent just now was not started")
    await expect(said).to_be_visible()
    await tab.check()


async def test_a_paste_that_is_too_long_is_answered_with_words(service: RunningService, browser: Browser) -> None:
    tab = await new_tab(browser)
    await tab.ask(service.url, "echo " + "x" * 120_000)
    await expect(tab.page.get_by_label("Command")).to_have_accessible_description(re.compile("at most 100,000 bytes"))
    await expect(tab.page.get_by_label("Your e-mail")).to_have_value("ada@example.org")

    await tab.ask(service.url, "echo " + "x" * 2_000_000)

    await tab.shows("That is too long")
    await tab.page.get_by_role("button", name="To the first page").click()
    await tab.shows("Ask for a machine")


async def test_without_javascript_everything_works_and_the_page_looks_again_by_itself(
    service: RunningService, database: Database, browser: Browser
) -> None:
    tab = await new_tab(browser, java_script_enabled=False)
    await tab.ask(service.url, "echo hi")
    await tab.shows("You are next in line")
    await expect(tab.page.locator("meta[http-equiv=refresh]")).to_have_count(1)
    for needs_it in tab.page.get_by_text("Why is it so?"), tab.page.get_by_role("button", name="Copy"):
        await expect(needs_it).to_be_hidden()
    await database.vm("vm-1")
    await tab.shows("vm-1 is yours")
    await tab.page.get_by_role("button", name="Cancel").click()
    await tab.shows("This request was cancelled")


async def test_without_javascript_whoever_is_asked_for_a_line_has_time_to_paste_it_and_is_told_what_is_wrong(
    service: RunningService, database: Database, browser: Browser
) -> None:
    tab = await new_tab(browser, java_script_enabled=False)
    await database.vm("vm-1")
    await tab.page.goto(service.url)
    await tab.page.get_by_label("Your e-mail").fill("ada@example.org")
    await tab.page.get_by_role("button", name="Reserve a desktop first").click()
    await tab.shows("vm-1 is kept for you")
    await expect(tab.page.locator("meta[http-equiv=refresh]")).to_have_count(0)
    await tab.page.get_by_label("Fresh line").fill("echo hi")
    await tab.page.get_by_role("button", name="Go on").click()
    await expect(tab.page.locator("#line-wrong")).to_be_visible()

    await tab.page.goto(tab.page.url)

    await tab.shows("vm-1 is kept for you")


async def test_the_button_that_was_pressed_is_the_one_that_is_busy(service: RunningService, browser: Browser) -> None:
    tab = await new_tab(browser)
    await tab.page.goto(service.url)
    await tab.page.evaluate("document.addEventListener('submit', event => event.preventDefault())")
    await tab.page.get_by_label("Your e-mail").fill("ada@example.org")
    reserve = tab.page.get_by_role("button", name="Reserve a desktop first")

    await reserve.click()

    await expect(reserve).to_have_attribute("aria-busy", "true")
    await expect(tab.page.locator("[aria-busy]")).to_have_count(1)


async def test_a_restart_of_the_stream_is_survived(
    service: RunningService, database: Database, browser: Browser
) -> None:
    tab = await new_tab(browser)
    await tab.ask(service.url, "echo hi")
    await tab.shows("You are next in line")
    async with asyncio.timeout(LIMIT_SECONDS):
        while not service.service.feed.subscribers:
            await tab.page.evaluate("'the stream is being opened'")
    await tab.context.set_offline(True)
    for connection in list(service.server.server_state.connections):
        connection.transport.abort()
    machine, owner = await PlayedClient.of(await database.vm("vm-1")), await database.connect()
    async with asyncio.timeout(LIMIT_SECONDS):
        while await owner.fetchval("SELECT vm_id IS NULL FROM leases"):
            pass
    await machine.claim()
    await tab.context.set_offline(False)

    await tab.shows("vm-1 is starting your command")


async def test_the_documentation_is_shown_under_the_policy_and_in_the_dark(
    service: RunningService, browser: Browser
) -> None:
    tab = await new_tab(browser)
    await tab.page.goto(f"{service.url}/docs")

    await tab.page.get_by_text("/api/v1/leases", exact=True).first.wait_for()
    light = await tab.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    await tab.page.emulate_media(color_scheme="dark")
    await expect(tab.page.locator("html")).not_to_have_css("background-color", light)
    assert tab.complaints == []
