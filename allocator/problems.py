"""Answers for whatever goes wrong: RFC 9457 problem details for programs, a page in the same words for people."""

import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from allocator.errors import InvalidRequest, NoToken, ServiceError, Stopping, TooSlow, Unavailable
from allocator.templates import Templates

MEDIA_TYPE = "application/problem+json"
SCHEMA = {"$ref": "#/components/schemas/Problem"}

log = structlog.get_logger()


class FieldProblem(BaseModel):
    """What is wrong with one field of a request."""

    field: str
    detail: str


class Problem(BaseModel):
    """What went wrong and what to do next (RFC 9457)."""

    type: str = Field(default="about:blank", description="Which kind of problem: stays the same when the words change.")
    title: str = Field(description="The kind of problem in words.")
    status: int = Field(ge=400, le=599, description="The HTTP status.")
    detail: str = Field(description="What happened this time, and what to do next.")
    errors: list[FieldProblem] | None = Field(default=None, description="The fields that it is about.")


NOT_JSON = Problem(
    type="urn:lablink:invalid-json",
    title="The body is not JSON",
    status=400,
    detail="It cannot be read as JSON. Check its quotes, brackets and encoding (UTF-8).",
)


class ProblemResponse(JSONResponse):
    """A Problem as an answer."""

    media_type = MEDIA_TYPE


WORDS = {
    404: "There is nothing here. Check the address.",
    405: "This address does not answer that method.",
    500: "Something went wrong on our side. Try again; if it stays, tell your admin.",
}

SENTENCES = {
    "missing": "{name} is missing.",
    "extra_forbidden": "{name} is no field of this request: leave it out.",
    "union_tag_not_found": "{name} is missing.",
    "union_tag_invalid": "{name} must be one of {expected_tags}.",
    "greater_than_equal": "{name} must be {ge} at least.",
    "less_than_equal": "{name} may be {le} at most.",
    "string_type": "{name} must be text.",
    "string_too_short": "{name} is missing or too short.",
    "string_too_long": "{name} may have at most {max_length} characters.",
    "string_pattern_mismatch": "{name} is not written as it must be: see /docs.",
    "string_unicode": "{name} contains characters that are not valid Unicode.",
    "model_attributes_type": "{name} must be a JSON object, with its fields in curly brackets.",
}
"""What pydantic calls a mistake → what we say of it. What was sent is never repeated."""


class Problems:
    """Makes the answer to an exception; `status_of` says which HTTP status an error of ours has."""

    def __init__(self, templates: Templates, status_of: Callable[[ServiceError], int]) -> None:
        self._templates = templates
        self._status_of = status_of

    async def answer(self, request: Request, error: Exception) -> Response:
        """The answer to `error`. What nobody expected is logged; none of it is told."""
        problem, headers = self.describe(error), headers_of(error)
        if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            _log(error, problem.status)
        if wants_page(request):
            refresh = headers.get("Retry-After") if request.method == "GET" else None
            page = self._templates.page("problem.html", problem.status, problem=problem, refresh=refresh)
            page.headers.update(headers)
            return page
        return problem_response(problem, headers)

    def describe(self, error: Exception) -> Problem:
        """What to tell of `error`."""
        if isinstance(error, ServiceError):
            return _of_service(error, self._status_of(error))
        if isinstance(error, RequestValidationError):
            return _of_validation(_as_sent(error))
        if not isinstance(error, HTTPException):
            return _of_status(500)
        if isinstance(error.__cause__, ValueError | RecursionError):  # FastAPI, of JSON too deep or not UTF-8
            return NOT_JSON
        return _of_status(error.status_code, error.detail)


def problem_response(problem: Problem, headers: Mapping[str, str]) -> Response:
    """The answer for programs."""
    return ProblemResponse(problem.model_dump(exclude_none=True), problem.status, dict(headers))


def headers_of(error: Exception) -> dict[str, str]:
    """The headers that go with `error`."""
    if isinstance(error, Unavailable):
        return {"Retry-After": str(error.retry_after)}
    if isinstance(error, NoToken):
        return {"WWW-Authenticate": 'Bearer realm="lablink"'}
    if isinstance(error, TooSlow):
        return {"Connection": "close"}  # the rest of it is not waited for either
    return dict(error.headers or {}) if isinstance(error, HTTPException) else {}


def wants_page(request: Request) -> bool:
    """Whether a person is to read the answer."""
    accept = request.headers.get("accept", "")
    if request.url.path == "/api/request_vm":
        return not wants_json(request)
    return "text/html" in accept and not request.url.path.startswith("/api/")


def wants_json(request: Request) -> bool:
    """Whether a program that can also be answered with pages asks for JSON."""
    accept = request.headers.get("accept", "")
    return "json" in accept and "text/html" not in accept


def responses(*statuses: int, pages: bool = False) -> dict[int | str, dict[str, Any]]:
    """How a route tells the OpenAPI document which problems it answers with; to people as `pages`."""
    content = {MEDIA_TYPE: {"schema": SCHEMA}} | ({"text/html": {"schema": {"type": "string"}}} if pages else {})
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def type_of(kind: type[ServiceError]) -> str:
    """The `type` of a problem: NoSuchLease → urn:lablink:no-such-lease."""
    return f"urn:lablink:{re.sub(r'(?<!^)(?=[A-Z])', '-', kind.__name__).lower()}"


def _of_service(error: ServiceError, status: int) -> Problem:
    fields = [FieldProblem(field=field, detail=detail) for field, detail in error.fields.items()] or None
    return Problem(type=type_of(type(error)), title=error.title, status=status, detail=str(error), errors=fields)


def _of_status(status: int, otherwise: str = "") -> Problem:
    return Problem(title=HTTPStatus(status).phrase, status=status, detail=WORDS.get(status, otherwise))


def _as_sent(error: RequestValidationError) -> list[Mapping[str, Any]]:
    """What FastAPI refused, each at the place where it was sent: FastAPI adds a kind, where there are several."""
    kind = error.body.get("kind") if isinstance(error.body, dict) else None
    found = error.errors()
    return [
        each | {"loc": [*each["loc"][:1], *each["loc"][2:]]} if each["loc"][1:-1] == (kind,) else each for each in found
    ]


def _of_validation(found: Sequence[Mapping[str, Any]]) -> Problem:
    """What FastAPI refused. What was sent is not repeated: it may hold a code."""
    if any(each["type"] == "json_invalid" for each in found):
        return NOT_JSON
    fields = [FieldProblem(field=_field(each), detail=_sentence(each)) for each in found]
    return Problem(
        type=type_of(InvalidRequest),
        title=InvalidRequest.title,
        status=422,
        detail=" ".join(field.detail for field in fields),
        errors=fields,
    )


def _sentence(found: Mapping[str, Any]) -> str:
    """What is wrong with one field, as a sentence that also stands alone."""
    sentence = SENTENCES.get(found["type"], "{name} is not as it must be: see /docs.")
    return sentence.format(name=_field(found), **found.get("ctx", {}))


def _field(found: Mapping[str, Any]) -> str:
    """The field that it is about: of something that may be one of several kinds, the one that says which."""
    says_which = found.get("ctx", {}).get("discriminator")
    return says_which.strip("'") if says_which else _name(found["loc"])


def _name(location: Sequence[int | str]) -> str:
    parts = location[1:] if location[0] in ("body", "query", "path", "header", "cookie") else location
    return ".".join(map(str, parts)) or f"The {location[0]}"


def _log(error: Exception, status: int) -> None:
    if isinstance(error, Stopping):  # load balancers ask every second; service.leaving has said it once
        return
    if isinstance(error, ServiceError):
        log.warning("request.refused", status=status, error=type(error).__name__, why=error.why)
    else:
        log.error("request.failed", exc_info=error)
