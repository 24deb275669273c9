"""What a participant sees in a real browser: joining, choosing, waiting, being served, moved, made longer."""

import re
from datetime import timedelta

import asyncpg
import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from allocator.join_codes import code_sha256
from tests.support.browser import Tab, new_tab
from tests.support.database import Database
from tests.support.service import DESKTOP_LINE, PlayedClient, RunningService

CODE = "K7MP-3XQ2-9RTW"
EXTENSION = "UPDATE pools SET extend_seconds = {}, longest_seconds = 86400, warn_seconds = {}"
ENDS_SOON = re.compile(r"Ends in \d+ minutes · Your command is running · LabLink")

pytestmark = pytest.mark.usefixtures("no_time_passes")


@pytest_asyncio.fixture
async def tab(browser: Browser) -> Tab:
    """A participant's."""
    return await new_tab(browser)


async def open_course(owner: asyncpg.Connection) -> None:
    """A course with a share in the usual pool, and its code."""
    await owner.execute("INSERT INTO groups (name) VALUES ('course')")
    await owner.execute("INSERT INTO shares (pool, group_name) VALUES ('default', 'course')")
    await owner.execute("SELECT add_join_code('course', $1, 2, NULL, clock() + interval '1 day')", code_sha256(CODE))


async def running(service: RunningService, database: Database, tab: Tab) -> PlayedClient:
    """The machine on which the participant's command runs."""
    machine = await PlayedClient.of(await database.vm("vm-1"))
    await tab.ask(service.url, "echo hi")
    await tab.shows("vm-1 is yours")
    await machine.claim()
    await machine.report("started")
    await tab.shows("Your command is running")
    return machine


async def test_a_link_brings_the_code_into_its_field_and_out_of_the_address(
    service: RunningService, owner: asyncpg.Connection, tab: Tab
) -> None:
    await open_course(owner)
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url))

    await tab.page.goto(f"{service.url}/#join={CODE}")

    field = tab.page.get_by_label("Workshop code")
    await expect(field).to_have_value(CODE)
    await expect(tab.page).to_have_url(f"{service.url}/")
    assert not any(CODE in url for url in asked)
    await tab.check()
    await tab.page.get_by_label("Your e-mail").fill("ada@example.org")
    await tab.page.get_by_label("Command").fill("echo hi")
    await tab.page.get_by_role("button", name="Ask for a machine").click()
    await tab.shows("You are next in line")
    assert await owner.fetchval("SELECT group_name FROM members") == "course"


async def test_a_wrong_code_is_marked_and_what_was_typed_is_still_there(
    service: RunningService, owner: asyncpg.Connection, tab: Tab
) -> None:
    await open_course(owner)
    await tab.page.goto(f"{service.url}/#join=WRONG")
    await tab.page.get_by_label("Your e-mail").fill("ada@example.org")
    await tab.page.get_by_label("Command").fill("echo hi")
    await tab.page.get_by_role("button", name="Ask for a machine").click()

    field = tab.page.get_by_label("Workshop code")
    await expect(field).to_be_focused()
    await expect(field).to_have_value("WRONG")
    await expect(field).to_have_attribute("aria-invalid", "true")
    await expect(tab.page.locator("#code-wrong")).to_contain_text("Check it letter by letter")
    await expect(tab.page.get_by_label("Command")).to_have_value("echo hi")
    await tab.check()


async def test_where_there_is_one_pool_for_all_nobody_is_asked_for_a_kind_or_a_code(
    service: RunningService, tab: Tab
) -> None:
    await tab.page.goto(service.url)

    await expect(tab.page.get_by_label("Workshop code")).to_be_hidden()
    await expect(tab.page.get_by_role("radio")).to_have_count(0)


async def test_people_choose_between_pools_that_say_how_they_are(
    service: RunningService, database: Database, owner: asyncpg.Connection, tab: Tab
) -> None:
    await owner.execute("INSERT INTO pools (name, accepts_desktop, programs) VALUES ('gpu', false, '{python3}')")
    await tab.page.goto(service.url)
    choice = tab.page.locator("label.choice", has_text="gpu")
    await expect(choice).to_contain_text("python3; for up to 8 hours.")
    await expect(choice.locator(".now")).to_have_text("There are no machines yet.")
    await tab.check()

    await database.vm("gpu-1", pool="gpu")

    await expect(choice.locator(".now")).to_have_text("1 of 1 machines is free.")
    await tab.page.get_by_label("Your e-mail").fill("ada@example.org")
    await choice.click()
    await tab.page.get_by_label("Command").fill("echo not there")
    await tab.page.get_by_role("button", name="Ask for a machine").click()
    await expect(tab.page.get_by_role("radio", name="gpu")).to_be_checked()
    await tab.page.get_by_label("Command").fill("python3 -c 'print(42)'")
    await tab.page.get_by_role("button", name="Ask for a machine").click()
    await tab.shows("gpu-1 is yours")


async def test_whoever_waits_sees_place_time_and_reason_and_is_served(
    service: RunningService, database: Database, tab: Tab, browser: Browser
) -> None:
    await database.vm("vm-1")
    first = await new_tab(browser)
    await first.ask(service.url, "echo hi")
    await first.shows("vm-1 is yours")

    await tab.ask(service.url, DESKTOP_LINE, "bob@example.org")

    await tab.shows("You are next in line")
    await expect(tab.page.locator(".lead")).to_contain_text("A machine is yours within 8 h")
    await expect(tab.page.locator("#lease")).to_contain_text("The next lease ends in 8 h at the latest.")
    await tab.page.get_by_text("Why is it so?").click()
    await expect(tab.page.locator(".why")).to_contain_text("a machine of its pool is free: 1 lent")
    await tab.check()
    await database.vm("vm-2")
    await tab.shows("vm-2 is yours")
    await expect(tab.page.locator("[sse-swap=announcement]")).to_contain_text("vm-2 is yours.")


async def test_a_desktop_is_reserved_in_one_click_and_its_line_is_asked_for_when_the_machine_is_there(
    service: RunningService, database: Database, tab: Tab
) -> None:
    await tab.page.goto(service.url)
    await tab.page.get_by_label("Your e-mail").fill("ada@example.org")
    await tab.page.get_by_role("button", name="Reserve a desktop first").click()
    await tab.shows("You are next in line")
    await expect(tab.page.locator("#lease")).to_contain_text("this page asks you for a fresh line")
    machine = await PlayedClient.of(await database.vm("vm-1"))

    await tab.shows("vm-1 is kept for you")
    await expect(tab.page.locator(".lead")).to_have_text("It is reserved for your desktop.")
    await tab.page.get_by_label("Fresh line").fill(DESKTOP_LINE)
    await tab.page.get_by_role("button", name="Go on").click()

    await tab.shows("vm-1 is yours")
    await machine.claim()
    await machine.report("exited", 0, "Host started successfully.\n")
    await tab.shows("Your machine is ready")


async def test_whoever_is_moved_sees_it_by_itself_and_goes_on_with_a_fresh_line(
    service: RunningService, database: Database, owner: asyncpg.Connection, tab: Tab
) -> None:
    machine = await PlayedClient.of(await database.vm("vm-1"))
    await tab.ask(service.url, DESKTOP_LINE)
    await tab.shows("vm-1 is yours")
    await machine.claim()
    await machine.report("exited", 0, "Host started successfully.\n")
    await tab.shows("Your machine is ready")
    spare = await PlayedClient.of(await database.vm("vm-2"))

    await owner.execute("UPDATE vms SET status = 'failed', reason = 'disk' WHERE hostname = 'vm-1'")

    await tab.shows("vm-2 is kept for you")
    await expect(tab.page.locator(".lead")).to_have_text(
        "The machine that you had was taken out of service. This one takes its place."
    )
    await expect(tab.page.locator("[sse-swap=announcement]")).to_contain_text("vm-2 is kept for you.")
    await tab.check()
    await tab.page.get_by_label("Fresh line").fill(DESKTOP_LINE)
    await tab.page.get_by_role("button", name="Go on").click()
    await tab.shows("vm-2 is yours")
    await spare.claim()
    await spare.report("exited", 0, "Host started successfully.\n")
    await tab.shows("Your machine is ready")


async def test_a_lease_that_ends_soon_says_so_and_is_made_longer_in_one_click(
    service: RunningService, database: Database, owner: asyncpg.Connection, tab: Tab
) -> None:
    await running(service, database, tab)
    before = await owner.fetchval("SELECT expires_at FROM leases")
    await owner.execute(EXTENSION.format(600, 86_400))
    await database.stand_at(str(before - timedelta(hours=8) + timedelta(minutes=1)))
    await owner.execute("SELECT pg_notify('lease_updates', '')")  # else it looks within ten seconds
    await expect(tab.page.locator(".lamp")).to_have_text("Ends soon")
    await tab.check()

    await tab.page.get_by_role("button", name="Keep it until").press("Enter")

    await tab.page.locator("dl.facts", has_text="8 h 9 min").wait_for()
    assert (await owner.fetchval("SELECT expires_at FROM leases") - before).total_seconds() == 600


async def test_the_tab_and_what_is_read_aloud_begin_with_the_end_until_it_is_put_off(
    service: RunningService, database: Database, owner: asyncpg.Connection, tab: Tab
) -> None:
    await running(service, database, tab)
    aloud = tab.page.locator("[sse-swap=announcement]")
    await expect(tab.page).to_have_title("Your command is running · LabLink")
    await expect(aloud).to_contain_text("Your command is running")
    await owner.execute(EXTENSION.format(3600, 900))
    await owner.execute("UPDATE leases SET expires_at = clock() + interval '10 minutes'")

    await expect(tab.page).to_have_title(ENDS_SOON)
    await expect(aloud).to_contain_text("Ends within 10 minutes, unless you keep it longer. Your command is running.")
    await tab.page.get_by_role("button", name="Keep it until").press("Enter")

    await expect(tab.page).to_have_title("Your command is running · LabLink")
    await expect(aloud).to_contain_text("Your command is running. It runs on vm-1.")


async def test_whoever_left_a_machine_unused_is_asked_and_keeps_it_in_one_click(
    service: RunningService, database: Database, owner: asyncpg.Connection, tab: Tab
) -> None:
    machine = await running(service, database, tab)
    await owner.execute("UPDATE pools SET idle_seconds = 3600, idle_warn_seconds = 600")
    await owner.execute("UPDATE leases SET active_at = active_at - interval '1 day'")
    await machine.connection.execute("SELECT client_api.hello(0, NULL, 3001)")
    here = tab.page.get_by_role("button", name="I am still here")
    await expect(here).to_be_visible()
    await expect(tab.page).to_have_title(ENDS_SOON)
    await expect(tab.page.locator("[sse-swap=announcement]")).to_contain_text("unless you say that you are still here")
    await tab.check()

    await here.press("Enter")

    await expect(here).to_have_count(0)
    await tab.shows("Your command is running")
    assert await owner.fetchval("SELECT idle_until FROM leases") is None


async def test_a_paused_pool_says_so_to_whoever_waits(
    service: RunningService, owner: asyncpg.Connection, tab: Tab
) -> None:
    await owner.execute("UPDATE pools SET paused = true")
    await tab.ask(service.url, "echo hi")

    await tab.shows("You are next in line")
    await expect(tab.page.locator(".lead")).to_contain_text("an admin has paused it")


async def test_the_page_of_all_pools_follows_them_and_reads_well(
    service: RunningService, database: Database, tab: Tab
) -> None:
    await tab.page.goto(f"{service.url}/status")
    await expect(tab.page.locator(".pool-status")).to_contain_text("There are no machines yet")

    await database.vm("vm-1")
    await database.vm("vm-2")

    await expect(tab.page.locator(".pool-status")).to_contain_text("2 of 2 machines are free")
    await tab.check()
