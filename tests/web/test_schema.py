"""What the schema allows is answered as the schema says, and what it forbids is an error in the one shape."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import load_all_checks
from tests.web.server import Server, serving

from clearmargin.web.answers import ErrorAnswer

load_all_checks()
CHECKS = schemathesis.checks.CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "negative_data_rejection",
        "unsupported_method",
        "allow_header_conformance",
    ]
)
CAN_BE_WRONG = [f"/api/v1/{path}" for path in ("predict", "explain", "models/{name}/similar/{case}")]
"""Whose parameters are not just any text."""
QUICK = settings(
    max_examples=8, phases=[Phase.generate], suppress_health_check=list(HealthCheck), deadline=None, database=None
)


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("schema"), bundle) as running:
        yield running


@pytest.fixture(scope="module")
def operations(server: Server) -> list[Any]:
    with server.client() as client:
        schema = schemathesis.openapi.from_dict(client.get("/api/v1/openapi.json").json())
    return [found.ok() for found in schema.get_all_operations()]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_operation_keeps_to_the_schema(server: Server, operations: list[Any], mode: GenerationMode) -> None:
    asked = set[str]()
    for operation in operations:
        if mode is GenerationMode.NEGATIVE and operation.path not in CAN_BE_WRONG:
            continue

        @QUICK
        @given(operation.as_strategy(mode))
        def ask(case: Case) -> None:
            answer = case.call(base_url=server.url)
            case.validate_response(answer, checks=CHECKS)
            if answer.status_code >= 400:
                assert ErrorAnswer.model_validate(answer.json()).error.status == answer.status_code
            asked.add(case.path)

        ask()
    assert "/api/v1/predict" in asked
    assert server.process.poll() is None


def test_the_schema_names_every_operation_of_the_application(operations: list[Any], server: Server) -> None:
    named = {operation.path for operation in operations}
    assert {f"/api/v1/{name}" for name in ("predict", "explain", "models", "card", "figures", "metrics")} <= named
    assert all(httpx.URL(path).path.startswith("/api/v1/") for path in named)
