"""What /openapi.json promises is what is answered, whatever Schemathesis thinks of sending."""

import asyncio
from contextlib import suppress
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import CheckFunction
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.support.fleet import ADMIN
from tests.support.service import RunningService

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLES = 25
REFUSED = ["400", "401", "403", "404", "405", "408", "409", "413", "415", "422", "429"]
CONFIG = {"checks": {"negative_data_rejection": {"expected-statuses": REFUSED}}}
TOLERATED: list[CheckFunction] = [positive_data_acceptance]
"""No schema can say what a command is, so most text that the schema allows is refused."""


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.timeout(300)
async def test_every_answer_is_as_documented(api_service: RunningService, mode: GenerationMode) -> None:
    await asyncio.to_thread(send_everything, api_service.url, mode)


def send_everything(url: str, mode: GenerationMode) -> None:
    """Send `EXAMPLES` requests to each operation, right ones or wrong ones, and check each answer."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", config=schemathesis.Config.from_dict(CONFIG))
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        with suppress(Unsatisfiable):  # an operation that takes nothing cannot be asked wrongly
            check_operation(found.ok(), mode)


def check_operation(operation: Any, mode: GenerationMode) -> None:
    """Raises what is wrong with one of the operation's answers.

    An admin asks for what only admins may. Where there is no body, what is wrong may be that their token is missing.
    """
    asked_rightly = mode is GenerationMode.POSITIVE or operation.method == "post"
    headers = ADMIN if "fleet" in operation.tags and asked_rightly else None

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def check(case: Case[Any]) -> None:
        case.call_and_validate(excluded_checks=TOLERATED, allow_redirects=False, headers=headers)

    check()


async def test_the_document_has_real_schemas_for_answers_and_problems(api: httpx.AsyncClient) -> None:
    document = (await api.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    operation = document["paths"]["/api/v1/leases"]["post"]

    assert {"LeaseWanted", "Lease", "LeaseWithToken", "Vm", "Enrolment", "Problem"} <= schemas.keys()
    assert "HTTPValidationError" not in str(document) and not any("_" in name for name in schemas)
    assert operation["responses"].keys() == {
        "200",
        "201",
        "400",
        "403",
        "408",
        "409",
        "413",
        "415",
        "422",
        "429",
        "503",
    }
    for status, response in operation["responses"].items():
        media = "application/json" if status < "300" else "application/problem+json"
        assert "$ref" in response["content"][media]["schema"]
