"""What holds for every request and every answer, streams and errors included: headers, body limit, who may send it."""

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from allocator.errors import CrossSite, TooLarge, TooSlow, WrongHost
from client.network import is_loopback

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
STATIC = "/static/"
STREAMS = ("/stream", "/events")
ANY_HOST = (STATIC, "/livez", "/readyz", "/metrics")
"""Answered under any name: nothing of a person's is there, and whoever watches may know the service by another one."""

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)

HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    # Not no-referrer: with that a browser says "Origin: null" in our own forms too.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
TWO_YEARS = 63_072_000
BODY_SECONDS = 30.0
"""In which a body must have come; the longest allowed takes ten at 256 kbit/s."""

Answer = Callable[[Request, Exception], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Site:
    """What this service is called by those who use it."""

    public_url: str | None
    listens_on: str

    @property
    def https(self) -> bool:
        """Whether people reach it over TLS, be it ended here or by a proxy in front."""
        return (self.public_url or "").startswith("https:")

    def base_of(self, request: Request) -> str:
        """The address to put before a path in a link that somebody keeps."""
        return self.public_url or str(request.base_url).rstrip("/")

    def is_ours(self, netloc: str) -> bool:
        """Whether a browser may have come here under this name.

        A name of a stranger's that leads to our address would let the stranger's pages speak to us as ours (DNS
        rebinding). An address written as a number cannot be a stranger's.
        """
        host = _host(netloc)
        if self.public_url and host == _host(urlsplit(self.public_url).netloc):
            return True
        if _is_number(host) or host == "localhost":
            return True
        return self.public_url is None and not is_loopback(self.listens_on)


class HeadersMiddleware:
    """Puts the security headers on every answer. Once `leaving` is set, it is the last one over its connection."""

    def __init__(self, app: ASGIApp, site: Site, leaving: asyncio.Event) -> None:
        self.app = app
        self._leaving = leaving
        self._headers = dict(HEADERS)
        if site.https:
            self._headers["Strict-Transport-Security"] = f"max-age={TWO_YEARS}; includeSubDomains"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message.setdefault("headers", []))
                headers.update(self._headers)
                headers["Cache-Control"] = "no-cache" if scope["path"].startswith(STATIC) else "no-store"
                if self._leaving.is_set():  # a balancer may keep none that it would use again
                    headers["Connection"] = "close"
            await send(message)

        return await self.app(scope, receive, send_with_headers)


class AnswerMiddleware:
    """Turns whatever is raised further in, and was not answered there, into an answer."""

    def __init__(self, app: ASGIApp, answer: Answer) -> None:
        self.app = app
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        except Exception as error:  # the outermost place of a request
            if started:
                raise
            response = await self._answer(Request(scope), error)
            await response(scope, receive, send)


class SameSiteMiddleware:
    """Refuses what another site makes a browser read or send. Programs that send do not say for whom, and pass."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self.app = app
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].startswith(ANY_HOST):
            headers = Headers(scope=scope)
            origin = (headers.get("sec-fetch-site"), headers.get("origin"))
            if scope["method"] in SAFE_METHODS:
                self._check_host(headers)
            elif origin != (None, None):
                self._check_host(headers)
                self._check_origin(headers, *origin)
        await self.app(scope, receive, send)

    def _check_host(self, headers: Headers) -> None:
        if not self._site.is_ours(headers.get("host", "")):
            raise WrongHost(f"Open it at {self._site.public_url}" if self._site.public_url else None)

    def _check_origin(self, headers: Headers, fetched_from: str | None, origin: str | None) -> None:
        host = headers.get("host", "")
        if fetched_from not in (None, "same-origin", "none"):
            raise CrossSite
        if fetched_from is None and origin not in (self._site.public_url, f"http://{host}", f"https://{host}"):
            raise CrossSite


class HeadMiddleware:
    """Has HEAD answered as GET; the server leaves the body out. A stream has no end to wait for, so it has no HEAD."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD" and not scope["path"].endswith(STREAMS):
            scope = {**scope, "method": "GET"}
        await self.app(scope, receive, send)


class BodyLimitMiddleware:
    """Reads the body before anything else does, and neither more of it nor longer than is allowed, whatever it says."""

    def __init__(self, app: ASGIApp, limit: int, seconds: float = BODY_SECONDS) -> None:
        self.app = app
        self._limit = limit
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in SAFE_METHODS:
            return await self.app(scope, receive, send)
        try:
            async with asyncio.timeout(self._seconds):
                messages = iter(await self._read(Headers(scope=scope), receive))
        except TimeoutError:
            raise TooSlow from None

        async def receive_again() -> Message:
            return next(messages, None) or await receive()

        return await self.app(scope, receive_again, send)

    async def _read(self, headers: Headers, receive: Receive) -> list[Message]:
        told = headers.get("content-length", "0")
        self._check(int(told) if told.isdecimal() else 0)
        messages, size = [await receive()], 0
        while messages[-1]["type"] == "http.request":
            size += len(messages[-1].get("body", b""))
            self._check(size)
            if not messages[-1].get("more_body", False):
                break
            messages.append(await receive())
        return messages

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise TooLarge(f"A request may have {self._limit:,} bytes in all. Shorten the command, then send it again.")


def _host(netloc: str) -> str:
    """The name in `name:port`, `[::1]:port` or `name`."""
    with suppress(ValueError):
        return urlsplit(f"//{netloc}").hostname or ""
    return ""


def _is_number(host: str) -> bool:
    with suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    return False
