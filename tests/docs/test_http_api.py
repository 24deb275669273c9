"""docs/http-api.md names every path, field and problem that there is, and none that there is not."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter

from allocator.api import LeaseWanted, LeaseWithToken
from allocator.api_fleet import FleetCost, FleetVm, Operation, Wanted
from allocator.api_machines import EnrolmentWanted, Vm
from allocator.api_pools import PoolNow
from allocator.app import create_app, status_of
from allocator.config import load_settings
from allocator.errors import Refusal, ServiceError, Unavailable
from allocator.migrations import function_files
from allocator.problems import type_of
from client.protocol import Enrolment
from tests.docs.markdown import ROOT, table, tables

PAGE = "docs/http-api.md"


def kinds(of: type[ServiceError] = ServiceError) -> Iterator[type[ServiceError]]:
    """Every error that is raised: all classes but those that only have others below them."""
    for kind in of.__subclasses__():
        if kind not in (Refusal, Unavailable):
            yield kind
        yield from kinds(kind)


def listed(column: str) -> list[list[str]]:
    """The first cells of each table whose first column has this name."""
    return [[name for row in rows for name in row[column].split(", ")] for rows in tables(PAGE) if column in rows[0]]


def test_the_page_names_every_path_and_method() -> None:
    document: dict[str, Any] = create_app(load_settings([])).openapi()

    there = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}

    named = set(re.findall(r"`((?:GET|POST|DELETE|PUT) /\S+)`", (ROOT / PAGE).read_text()))
    assert there <= named
    assert {path for path in named - there if "stream" not in path} == set()


def test_the_page_names_every_problem_with_its_status() -> None:
    written = {(row["type"], row["status"]) for row in table(PAGE, "type", "status", "what happened, and what helps")}

    raised = {(type_of(kind), str(status_of(kind()))) for kind in kinds()}

    assert written - raised == {("urn:lablink:invalid-json", "400"), ("about:blank", "404, 405, 500")}
    assert raised <= written


@pytest.mark.parametrize(
    ("column", "models"),
    [
        ("field of the request", [LeaseWanted, EnrolmentWanted]),
        ("field of a lease", [LeaseWithToken]),
        ("field of a machine", [Vm]),
        ("field of the answer", [Enrolment]),
        ("field of what is wanted", [Wanted]),
        ("field of a pool", [PoolNow]),
        ("field of an operation", [Operation]),
        ("field of a machine of the fleet", [FleetVm]),
        ("field of what it costs", [FleetCost]),
    ],
)
def test_the_page_names_every_field(column: str, models: list[type]) -> None:
    assert [sorted(fields) for fields in listed(column)] == [
        sorted(_fields(TypeAdapter(model).json_schema())) for model in models
    ]


def test_the_page_names_every_verb_of_the_hub_with_what_the_database_reads_of_it() -> None:
    [body] = [file.read_text() for file in function_files() if file.name == "82_hub.sql"]
    hub_call = body[
        body.index("FUNCTION hub_call(") : body.index("ELSE\n            RAISE EXCEPTION 'there is no such verb'")
    ]
    read = {
        verb: set(re.findall(r"said ->>? '(\w+)'", words)) | ({"epoch"} if "spoken" in words else set())
        for verb, words in re.findall(r"WHEN '(\w+)' THEN(.*?)(?=WHEN '|$)", hub_call, re.DOTALL)
    }

    written = {row["verb"]: row["arguments"] for row in table(PAGE, "verb", "arguments", "answer")}
    assert read.keys() == written.keys()
    for verb, arguments in read.items():
        assert {each for each in arguments if not re.search(rf"\b{each}\b", written[verb])} == set()


def _fields(schema: dict[str, Any]) -> set[str]:
    """The fields of an object; of one of several kinds, those of all."""
    kinds = schema["$defs"].values() if "oneOf" in schema else [schema]
    return {name for kind in kinds for name in kind["properties"]}
