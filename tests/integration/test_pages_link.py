"""The link that a lease's page shows: it opens the page anywhere, in any tab, and leaves no key behind."""

from playwright.async_api import Browser, expect

from tests.support.browser import new_tab
from tests.support.service import RunningService


async def test_the_kept_link_opens_the_lease_in_another_browser_and_leaves_no_key_behind(
    service: RunningService, browser: Browser
) -> None:
    tab, other = await new_tab(browser), await new_tab(browser)
    await tab.ask(service.url, "echo hi")
    link = await tab.page.get_by_label("Link to this page, with its key").input_value()
    asked: list[str] = []
    other.page.on("request", lambda request: asked.append(request.url))

    await other.page.goto(link)

    await other.shows("You are next in line")
    token = link.partition("#")[2]
    assert len(token) == 43
    assert token not in other.page.url
    assert not any(token in url.partition("#")[0] for url in asked)


async def test_the_kept_link_also_works_in_a_tab_that_shows_the_page_already(
    service: RunningService, browser: Browser
) -> None:
    tab, other = await new_tab(browser), await new_tab(browser)
    await tab.ask(service.url, "echo hi")
    link = await tab.page.get_by_label("Link to this page, with its key").input_value()
    await other.page.goto(tab.page.url)
    await other.shows("This page is not open to you")

    for page in (other.page, tab.page):
        await page.evaluate("link => { location.href = link }", link)

        await page.get_by_role("heading", name="You are next in line").wait_for()
        await expect(page).to_have_url(tab.page.url.partition("#")[0])


async def test_the_kept_link_leaves_no_key_behind_either_where_the_lease_is_open_already(
    service: RunningService, browser: Browser
) -> None:
    tab = await new_tab(browser)
    await tab.ask(service.url, "echo hi")
    link = await tab.page.get_by_label("Link to this page, with its key").input_value()

    again = await tab.page.context.new_page()
    await again.goto(link)

    await expect(again).to_have_url(link.partition("#")[0])


async def test_a_wrong_key_opens_nothing_and_the_page_says_so(service: RunningService, browser: Browser) -> None:
    tab, other = await new_tab(browser), await new_tab(browser)
    await tab.ask(service.url, "echo hi")
    await tab.shows("You are next in line")
    address = tab.page.url

    await other.page.goto(f"{address}#{'A' * 43}")
    await expect(other.page.get_by_role("alert")).to_contain_text("does not open this lease")
    await other.shows("This page is not open to you")
    await other.check()
    await tab.page.evaluate("location.hash = 'foreign'")

    await expect(tab.page.get_by_role("alert")).to_contain_text("does not open this lease")
    await expect(tab.page).to_have_url(address)
    await tab.check()


async def test_a_key_that_cannot_be_looked_up_now_is_kept_for_another_try(
    service: RunningService, browser: Browser
) -> None:
    tab = await new_tab(browser)
    await tab.page.route("**/return", lambda route: route.abort())

    await tab.page.goto(f"{service.url}/leases/00000000-0000-0000-0000-000000000000#{'A' * 43}")

    await expect(tab.page.get_by_role("alert")).to_contain_text("Reload the page")
    assert tab.page.url.endswith("A" * 43)


async def test_the_link_is_copied(service: RunningService, browser: Browser) -> None:
    tab = await new_tab(browser, permissions=["clipboard-read", "clipboard-write"])
    await tab.ask(service.url, "echo hi")
    await tab.page.get_by_role("button", name="Copy").click()
    await expect(tab.page.get_by_role("button", name="Copied")).to_be_visible()

    link = await tab.page.get_by_label("Link to this page, with its key").input_value()
    assert await tab.page.evaluate("navigator.clipboard.readText()") == link
