"""Somebody in front of a browser that runs no scripts: sends the form, and looks at the page that it leads to."""

import re
from html import unescape
from typing import Any

import httpx

from tests.support import LIMIT_SECONDS
from tests.support.service import NO_TLS
from tests.support.up import until

LOOK_EVERY = 0.2


class Person:
    """One person, whose browser remembers their lease."""

    def __init__(self, url: str, email: str) -> None:
        self.email = email
        self._browser = httpx.Client(base_url=url, verify=NO_TLS, follow_redirects=True, timeout=LIMIT_SECONDS)
        self._page = "/"

    def asks(self, line: str) -> None:
        """Fill in the form and send it."""
        answer = self._browser.post("/api/request_vm", data={"email": self.email, "crd_command": line})
        assert answer.url.path.startswith("/leases/"), answer.text
        self._page = answer.url.path

    def sees(self, headline: str, seconds: float = LIMIT_SECONDS) -> str:
        """What the page says, once its headline is this one."""

        def page() -> str | None:
            text = self._browser.get(self._page).text
            found = re.search(r"<h1[^>]*>(.*?)</h1>", text)
            return unescape(text) if found and unescape(found[1]) == headline else None

        return until(page, f"{headline!r} on the page of {self.email}", seconds, LOOK_EVERY)

    def lease(self) -> dict[str, Any]:
        """What the API says of it."""
        lease: dict[str, Any] = self._browser.get(f"/api/v1{self._page}").json()
        return lease

    def gives_back(self) -> None:
        """End the lease on the page."""
        self._browser.post(f"{self._page}/end")

    def leaves(self) -> None:
        """Close the browser."""
        self._browser.close()
