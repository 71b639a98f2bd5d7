"""model.json: what is written can be read, and nothing else can."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.bundle.small_bundle import model_file

from clearmargin.bundle.schema import ModelFile, parse_model_file
from clearmargin.errors import BundleError
from clearmargin.types import INTENDED_USE

Change = Callable[[dict[str, Any]], object]


def contents() -> dict[str, Any]:
    values: dict[str, Any] = json.loads(model_file().to_json())
    return values


def parse(values: object) -> ModelFile:
    return parse_model_file(json.dumps(values).encode(), "model.json")


def test_what_is_written_is_read() -> None:
    model = model_file()
    assert parse_model_file(model.to_json().encode(), "model.json") == model
    assert contents()["schema"] == 1
    assert contents()["labels"] == ["benign", "malignant"]
    assert contents()["intended_use"] == INTENDED_USE


def test_the_deciding_operating_point_is_the_one_named() -> None:
    values = contents()
    values["operating_points"]["careful"] = values["operating_points"]["balanced"] | {"threshold": 0.1}
    assert parse(values).decision_point.threshold == 0.4321
    assert parse(values | {"operating_point": "careful"}).decision_point.threshold == 0.1


@pytest.mark.parametrize(
    ("value", "shown"), [(2, "2"), ("1", "'1'"), (0, "0"), (None, "None"), ("x" * 10_000, f"'{'x' * 49} ")]
)
def test_another_schema_version_is_refused_in_one_short_line(value: object, shown: str) -> None:
    with pytest.raises(BundleError) as caught:
        parse(contents() | {"schema": value, "something_new": True})
    assert str(caught.value).startswith(f"model.json: schema {shown.rstrip()}")
    assert "(it reads 1). Use the version of clearmargin that wrote the bundle" in str(caught.value)
    assert len(str(caught.value)) < 250


def test_a_missing_schema_version_is_refused() -> None:
    values = contents()
    del values["schema"]
    with pytest.raises(BundleError, match=r"model\.json: schema: the version is missing"):
        parse(values)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.update(surprise=1),
        lambda values: values["architecture"].update(surprise=1),
        lambda values: values["preprocessing"].update(crop=12),
        lambda values: values["lineage"].update(surprise=1),
        lambda values: values["operating_points"]["balanced"].update(surprise=1),
    ],
    ids=["file", "architecture", "preprocessing", "lineage", "operating point"],
)
def test_an_unknown_field_is_refused(change: Change) -> None:
    values = contents()
    change(values)
    with pytest.raises(BundleError, match=r"model\.json: .*(surprise|crop).*The bundle is damaged"):
        parse(values)


@pytest.mark.parametrize(
    "key", ["architecture", "preprocessing", "temperature", "operating_points", "operating_point", "lineage"]
)
def test_a_missing_field_is_named(key: str) -> None:
    values = contents()
    del values[key]
    with pytest.raises(BundleError, match=rf"model\.json: {key}: Field required"):
        parse(values)


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0},
        {"temperature": -1.0},
        {"temperature": "warm"},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"labels": ["malignant", "benign"]},
        {"labels": ["benign"]},
        {"operating_point": "other"},
        {"operating_points": {}},
        {"architecture": {"name": "residual", "parameters": -1}},
        {"conformal": {"level": 0.9}},
        {"input_gate": []},
    ],
    ids=str,
)
def test_a_value_out_of_range_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match=r"^model\.json: .*The bundle is damaged; make it anew\.$"):
        parse(contents() | change)


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.0001, float("nan"), float("inf")])
def test_a_threshold_outside_zero_to_one_is_refused(threshold: float) -> None:
    values = contents()
    values["operating_points"]["balanced"]["threshold"] = threshold
    with pytest.raises(BundleError, match="threshold is not in"):
        parse(values)


def test_a_threshold_of_one_is_allowed() -> None:
    values = contents()
    values["operating_points"]["balanced"]["threshold"] = 1.0
    assert parse(values).decision_point.threshold == 1.0


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"schema": 1}'])
def test_what_is_no_model_file_is_refused_in_one_line(text: bytes) -> None:
    with pytest.raises(BundleError, match=r"^model\.json: ") as caught:
        parse_model_file(text, "model.json")
    assert "\n" not in str(caught.value)
