"""A real browser, headless, that remembers what its pages complained of."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped]
from playwright.async_api import Browser, BrowserContext, Page, ViewportSize, async_playwright, expect

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
DESKTOP: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 360, "height": 740}
EXPECTED = "Failed to load resource: the server responded with a status of 4"


LIMIT_MS = 90_000
expect.set_options(timeout=LIMIT_MS)


@dataclass(slots=True)
class Tab:
    """A page in a context (cookies, colours, size) of its own, and what it complained of."""

    page: Page
    context: BrowserContext
    complaints: list[str] = field(default_factory=list)

    async def ask(self, url: str, line: str, email: str = "ada@example.org") -> None:
        """Fill in the form and send it."""
        await self.page.goto(url)
        await self.page.get_by_label("Your e-mail").fill(email)
        await self.page.get_by_label("Command").fill(line)
        await self.page.get_by_role("button", name="Ask for a machine").click()

    async def check(self) -> None:
        """Fails on what axe finds in light or dark, on what is wider than the screen, on the browser's complaints."""
        await self.page.wait_for_load_state()  # words are there before the style sheet is
        await self.page.evaluate("document.fonts.ready")
        for size in (PHONE, DESKTOP):
            await self.page.set_viewport_size(size)
            width = await self.page.evaluate("document.documentElement.scrollWidth")
            assert width <= size["width"], f"the page is {width} wide on a screen of {size['width']}"
        for colours in ("dark", "light"):
            await self.page.emulate_media(color_scheme=colours)
            found = await Axe().run(self.page)
            assert found.violations_count == 0, f"{colours}: {found.generate_report()}"
        assert self.complaints == []

    async def shows(self, heading: str) -> None:
        """Wait, under the browser's own limit, until the page says so in its main heading."""
        await self.page.locator("h1", has_text=heading).wait_for()

    def _heard(self, text: str) -> None:
        if not text.startswith(EXPECTED):
            self.complaints.append(text)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """The system's Chromium; the test is skipped where there is none."""
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        pytest.skip("there is no Chromium here (Debian: apt install chromium)")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=arguments, timeout=LIMIT_MS)
        try:
            yield browser
        finally:
            await browser.close()


async def new_tab(browser: Browser, **options: Any) -> Tab:
    """A tab whose pages nothing is known to yet; options as for a Playwright context."""
    context = await browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce"} | options)
    context.set_default_timeout(LIMIT_MS)
    tab = Tab(await context.new_page(), context)
    tab.page.on("console", lambda message: tab._heard(message.text) if message.type == "error" else None)
    tab.page.on("pageerror", lambda error: tab._heard(str(error)))
    return tab
