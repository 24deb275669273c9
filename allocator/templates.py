"""Renders the pages. Everything is escaped, and a name that is not there is an error."""

from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from allocator.time_words import duration, iso

HERE = Path(__file__).parent
STATIC = HERE / "static"


class Templates:
    """The templates of the package."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters["duration"] = duration
        self._environment.filters["iso"] = iso
        self._environment.globals["remaining"] = _remaining
        self.remembered = lru_cache(maxsize=64)(self.html)
        """As `html`, of values that many pages have in common."""

    def html(self, name: str, **values: Any) -> str:
        """The template of that name, filled in."""
        return self._environment.get_template(name).render(values)

    def page(self, name: str, status: int = 200, **values: Any) -> HTMLResponse:
        """An answer with the template of that name."""
        return HTMLResponse(self.html(name, **values), status)


def _remaining(then: datetime, now: datetime) -> str:
    return duration((then - now).total_seconds())
