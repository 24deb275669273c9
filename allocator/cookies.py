"""Keeps a person's leases and their tokens in the browser, so that the same browser comes back to them."""

import re
from collections.abc import Sequence
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from allocator.web import Site

KEPT = 8
"""How many leases a browser remembers; the oldest is forgotten first."""

MAX_AGE_SECONDS = 14 * 86_400

Kept = tuple[UUID, str]
"""A lease and its token."""

_ENTRY = re.compile(r"([0-9a-f]{32})\.([A-Za-z0-9_-]{43})")
_BEARER = re.compile(r"Bearer +(\S+) *", re.IGNORECASE)


class Cookie:
    """The cookie of one site. Over https no other host of the same domain can set or read it (`__Host-`)."""

    def __init__(self, site: Site) -> None:
        self._secure = site.https
        self.name = "__Host-lablink" if site.https else "lablink"

    def kept(self, request: Request) -> list[Kept]:
        """What the browser's cookie holds, newest first; whatever is not a lease and its token is left out."""
        found = map(_ENTRY.fullmatch, request.cookies.get(self.name, "").split("~"))
        return [(UUID(entry[1]), entry[2]) for entry in found if entry][:KEPT]

    def keep(self, request: Request, response: Response, newest: Kept) -> None:
        """Have the browser keep one more lease."""
        others = [kept for kept in self.kept(request) if kept[0] != newest[0]]
        kept = [newest, *others][:KEPT]
        response.set_cookie(
            self.name,
            "~".join(f"{lease_id.hex}.{token}" for lease_id, token in kept),
            max_age=MAX_AGE_SECONDS,
            path="/",
            secure=self._secure,
            httponly=True,
            samesite="lax",
        )


def bearer_tokens(request: Request) -> Sequence[str]:
    """The token of the Authorization header, if it has one: as it is, right or wrong."""
    found = _BEARER.fullmatch(request.headers.get("authorization", ""))
    return [found[1]] if found else []
