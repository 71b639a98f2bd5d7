"""Every line of the contract's table of errors, in the one shape."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.web.conftest import files, png
from tests.web.in_process import InProcess

from clearmargin.errors import BundleError, ImageError, Interrupted
from clearmargin.web.answers import ErrorAnswer
from clearmargin.web.errors import STATUS_OF, ApiError, api_error

CONTRACT = Path(__file__).parents[2] / "docs" / "serve.md"


def test_the_codes_are_those_of_the_contract() -> None:
    lines = re.findall(r"^\| (\d{3}) \| ((?:`\w+`(?:, )?)+) \|", CONTRACT.read_text(encoding="utf-8"), re.MULTILINE)
    told = {code: int(status) for status, codes in lines for code in re.findall(r"\w+", codes)}
    assert told == STATUS_OF


ASKED = [
    ("GET", "/nothing", 404, "not_found"),
    ("GET", "/api/v1/nothing", 404, "not_found"),
    ("GET", "/api/v1/models/nobody", 404, "not_found"),
    ("GET", "/api/v1/models/nobody/similar/1", 404, "not_found"),
    ("GET", "/api/v1/card?model=nobody", 404, "not_found"),
    ("GET", "/api/v1/examples/nothing.png", 404, "not_found"),
    ("GET", "/api/v1/models/small/similar/0", 422, "unprocessable"),
    ("GET", "/api/v1/models/small/similar/x", 422, "unprocessable"),
    ("GET", "/api/v1/models/small/similar/-1", 422, "unprocessable"),
    ("GET", "/api/v1/predict", 405, "method_not_allowed"),
    ("DELETE", "/api/v1/models", 405, "method_not_allowed"),
    ("PUT", "/api/v1/health", 405, "method_not_allowed"),
    ("POST", "/api/v1/predict?model=nobody", 404, "not_found"),
    ("POST", "/api/v1/predict?similar=51", 422, "unprocessable"),
    ("POST", "/api/v1/predict?similar=-1", 422, "unprocessable"),
    ("POST", "/api/v1/predict?similar=x", 422, "unprocessable"),
    ("POST", "/api/v1/predict?similar=1", 422, "unprocessable"),
    ("POST", "/api/v1/predict?prevalence=0", 422, "unprocessable"),
    ("POST", "/api/v1/predict?prevalence=1", 422, "unprocessable"),
    ("POST", "/api/v1/predict?prevalence=nan", 422, "unprocessable"),
    ("POST", "/api/v1/predict?context=perhaps", 422, "unprocessable"),
    ("POST", "/api/v1/explain?method=magic", 422, "unprocessable"),
    ("POST", "/api/v1/explain?alpha=2", 422, "unprocessable"),
]


@pytest.mark.parametrize(("method", "path", "status", "code"), ASKED)
def test_an_error_has_the_one_shape(client: InProcess, method: str, path: str, status: int, code: str) -> None:
    sent = files(("a.png", png())) if method == "POST" else None
    answer = client.request(method, path, files=sent)
    assert answer.headers["content-type"] == "application/json"
    told = ErrorAnswer.model_validate(answer.json()).error
    assert (answer.status_code, told.status, told.code) == (status, status, code)
    assert told.request_id == answer.headers["x-request-id"]
    assert told.message.isprintable()
    assert told.message.endswith(".")


def test_a_wrong_method_is_told_the_right_one(client: InProcess) -> None:
    assert client.get("/api/v1/predict").headers["allow"] == "POST"


def test_what_was_given_is_not_repeated(client: InProcess) -> None:
    answer = client.post("/api/v1/predict?similar=DoeJane&context=DoeJane", files=files(("a.png", png())))
    assert [detail["field"] for detail in answer.json()["error"]["details"]] == ["query.similar", "query.context"]
    assert "Doe" not in answer.text


def test_when_nothing_can_be_read_each_file_has_its_reason(client: InProcess) -> None:
    sent = [("cut.png", png()[:500]), ("words.png", b"words"), ("empty.png", b"")]
    error = client.post("/api/v1/predict", files=files(*sent)).json()["error"]
    assert error["code"] == "unprocessable"
    assert [(detail["path"], detail["kind"]) for detail in error["details"]] == [
        ("cut.png", "truncated"),
        ("words.png", "not_an_image"),
        ("empty.png", "empty"),
    ]
    assert not any(name in error["message"] for name, _ in sent)


@pytest.mark.parametrize(
    "error", [BundleError("/srv/bundle: damaged"), Interrupted("/x"), ValueError("/etc"), OSError(2, "no", "/etc")]
)
def test_what_holds_a_path_is_not_told(error: Exception) -> None:
    told = api_error(error)
    assert (told.status, told.code) == (500, "internal")
    assert "/srv" not in str(told) and "/etc" not in str(told)


def test_an_image_is_told_by_its_reason_not_by_its_path() -> None:
    assert str(api_error(ImageError("truncated", "/tmp/x/8f2a", "ends too early"))) == (
        "the image cannot be used: ends too early."
    )


def test_no_more_than_a_hundred_details_are_kept() -> None:
    assert len(ApiError("busy", "x", details=[{"reason": "y"}] * 500).details) == 100
