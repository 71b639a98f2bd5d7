"""model.json: what is written can be read, and nothing else can."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.bundle.small_bundle import every_choice, model_file

from clearmargin.bundle.schema import Architecture, ModelFile, Recalibration, parse_model_file
from clearmargin.decision import Abstention, Beta, Calibration, Isotonic, Platt, Temperature, decide, probability
from clearmargin.errors import BundleError
from clearmargin.types import INTENDED_USE

Change = Callable[[dict[str, Any]], object]


def contents(**chosen: Any) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(model_file(**chosen).to_json())
    return values


def parse(values: object) -> ModelFile:
    return parse_model_file(json.dumps(values).encode(), "model.json")


def test_what_is_written_is_read() -> None:
    model = model_file()
    assert parse_model_file(model.to_json().encode(), "model.json") == model
    assert contents()["schema"] == 2
    assert contents()["labels"] == ["benign", "malignant"]
    assert contents()["intended_use"] == INTENDED_USE


def test_the_deciding_operating_point_is_the_one_named() -> None:
    values = contents()
    values["operating_points"]["careful"] = values["operating_points"]["balanced"] | {"threshold": 0.1}
    assert parse(values).decision_point.threshold == 0.4321
    assert parse(values | {"operating_point": "careful"}).decision_point.threshold == 0.1


@pytest.mark.parametrize(
    ("value", "shown"),
    [("1", "'1'"), (0, "0"), (None, "None"), (True, "True"), (2.0, "2.0"), ([], "[]"), ("x" * 10_000, f"'{'x' * 49} ")],
)
def test_what_is_no_schema_version_is_refused_in_one_short_line(value: object, shown: str) -> None:
    with pytest.raises(BundleError) as caught:
        parse(contents() | {"schema": value, "something_new": True})
    assert str(caught.value).startswith(f"model.json: schema {shown.rstrip()}")
    assert "(it reads 1 to 2). The bundle is damaged" in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("version", [3, 99, 10**30])
def test_a_newer_schema_version_says_to_use_a_newer_clearmargin(version: int) -> None:
    with pytest.raises(
        BundleError, match=rf"schema {version} is newer than .* \(it reads 1 to 2\)\. Use a newer clear"
    ):
        parse(contents() | {"schema": version, "something_new": True})


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
        {"conformal": 0.9},
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


def test_everything_that_was_chosen_is_read_as_it_was_written() -> None:
    model = model_file(**every_choice())
    again = parse_model_file(model.to_json().encode(), "model.json")
    assert again == model
    assert again.to_json() == model.to_json()
    for name, value in every_choice().items():
        assert getattr(again, name) == value
    json.loads(model.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.mark.parametrize(
    "calibration",
    [
        Platt(slope=0.8, intercept=-0.25),
        Beta(a=0.7, b=1.3, c=0.1),
        Isotonic(logits=(-2.0, 0.0, 3.5), probabilities=(0.0, 0.4, 1.0)),
    ],
    ids=lambda calibration: calibration.method,
)
def test_each_calibration_comes_back_and_calibrates(calibration: Calibration) -> None:
    model = parse(contents(temperature=1.0, calibration=calibration))
    assert model.calibrated_by == model.calibration == calibration
    logits = np.linspace(-5, 5, 21)
    np.testing.assert_array_equal(probability(logits, model.calibrated_by), probability(logits, calibration))


def test_without_another_method_the_temperature_calibrates() -> None:
    assert parse(contents()).calibrated_by == Temperature(temperature=1.2345)


@pytest.mark.parametrize("between", [None, (0.4, 0.6), (0.2, 0.3), (0.0, 1.0)])
def test_the_model_decides_by_its_threshold_and_region(between: tuple[float, float] | None) -> None:
    low, high = between or (None, None)
    region = Abstention(coverage=0.9, low=low, high=high, n_units=20, unit="patient")
    model = parse(contents(conformal=region))
    values = np.array([0.0, 0.2, 0.25, 0.3, 0.4321, 0.5, 0.7, 1.0])
    assert model.decide(values).tolist() == decide(values, 0.4321, abstain_between=between).tolist()


def test_an_ensemble_a_fold_and_a_recalibration_are_kept() -> None:
    plain = model_file()
    recalibrated = Recalibration(created="2026-02-03T00:00:00+00:00", data_sha256="f" * 64, images=90, patients=None)
    model = plain.model_copy(
        update={
            "architecture": Architecture(name="residual", parameters=10, ensemble=5),
            "lineage": plain.lineage.model_copy(update={"folds": 5, "recalibrated": recalibrated}),
            "no_abstention": "there are 5 patients",
            "no_levels": {"slide": "slides are unknown"},
        }
    )
    assert parse_model_file(model.to_json().encode(), "model.json") == model


def put(place: str, value: object) -> Change:
    """Sets the value at a dotted place of the file."""

    def change(values: dict[str, Any]) -> None:
        *way, last = place.split(".")
        for name in way:
            values = values[name]
        values[last] = value

    return change


NAN, INF = float("nan"), float("inf")
REGION = {"coverage": 0.9, "low": 0.2, "high": 0.4, "n_units": 20, "unit": "patient"}
HOSTILE = [
    ("temperature", 2.0),  # beside another method
    ("calibration", {"method": "temperature", "temperature": 2.0}),
    ("calibration", {"method": "magic"}),
    ("calibration", {"slope": 1.0, "intercept": 0.0}),
    ("calibration", {"method": "platt", "slope": 0.0, "intercept": 0.0}),
    ("calibration", {"method": "platt", "slope": -1.0, "intercept": 0.0}),
    ("calibration", {"method": "platt", "slope": INF, "intercept": 0.0}),
    ("calibration", {"method": "platt", "slope": 1.0, "intercept": NAN}),
    ("calibration", {"method": "platt", "slope": 1.0, "intercept": 0.0, "extra": 1}),
    ("calibration", {"method": "beta", "a": -0.1, "b": 1.0, "c": 0.0}),
    ("calibration", {"method": "beta", "a": 1.0, "b": INF, "c": 0.0}),
    ("calibration", {"method": "isotonic", "logits": [], "probabilities": []}),
    ("calibration", {"method": "isotonic", "logits": [0.0], "probabilities": [0.1, 0.2]}),
    ("calibration", {"method": "isotonic", "logits": [1.0, 0.0], "probabilities": [0.1, 0.2]}),
    ("calibration", {"method": "isotonic", "logits": [0.0, 1.0], "probabilities": [0.3, 0.2]}),
    ("calibration", {"method": "isotonic", "logits": [0.0, 1.0], "probabilities": [0.3, 1.2]}),
    ("calibration", {"method": "isotonic", "logits": [0.0, INF], "probabilities": [0.3, 0.4]}),
    ("conformal", REGION | {"coverage": 1.0}),
    ("conformal", REGION | {"coverage": 0}),
    ("conformal", REGION | {"low": 0.5}),
    ("conformal", REGION | {"low": None}),
    ("conformal", REGION | {"high": 1.5}),
    ("conformal", REGION | {"low": NAN}),
    ("conformal", REGION | {"n_units": 0}),
    ("conformal", REGION | {"unit": "slide"}),
    ("conformal", REGION | {"extra": 1}),
    ("levels", {"breast": {"threshold": 0.5}}),
    ("levels", {"slide": None}),
    ("levels.slide", {}),
    ("levels.slide.threshold", 0.0),
    ("levels.slide.threshold", 1.5),
    ("levels.slide.threshold", NAN),
    ("levels.slide.pooling.method", "median"),
    ("levels.slide.pooling.mean_weight", -1.0),
    ("levels.slide.pooling.intercept", INF),
    ("levels.slide.pooling.k", 3),  # belongs to top_k alone
    ("levels.patient.pooling.k", None),
    ("levels.patient.pooling.k", 0),
    ("levels.slide.calibration", {"method": "magic"}),
    ("levels.slide.extra", 1),
    ("no_levels", {"breast": "no"}),
    ("architecture.ensemble", 0),
    ("architecture.ensemble", 10**9),
    ("lineage.folds", -1),
    ("lineage.recalibrated", {"created": "", "data_sha256": "", "images": 0, "patients": None}),
    ("reference.unit", "slide"),
    ("reference.score.quantiles", [0.5] * 20),
    ("reference.score.quantiles", [0.5] * 20 + [0.4]),
    ("reference.score.quantiles", [0.5] * 20 + [NAN]),
    ("reference.score.between", -1.0),
    ("reference.score.n_units", 1),
    ("reference.images", [1, 2]),
]


@pytest.mark.parametrize(("place", "value"), HOSTILE, ids=lambda value: repr(value)[:60])
def test_a_hostile_value_is_refused_in_one_short_line_that_names_its_place(place: str, value: object) -> None:
    values = contents(**every_choice())
    parse(values)
    put(place, value)(values)
    with pytest.raises(BundleError, match=r"^model\.json: .*The bundle is damaged; make it anew\.$") as caught:
        parse(values)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 400
    if place != "temperature":
        assert place.partition(".")[0] in text


@pytest.mark.parametrize("words", ["a\nb", "\x1b[2J", "a\r\nERROR: b"], ids=["lines", "escape", "crlf"])
@pytest.mark.parametrize("where", ["field", "method", "level"])
def test_foreign_words_never_break_the_line(words: str, where: str) -> None:
    values = contents(**every_choice())
    if where == "field":
        values[words] = 1
    elif where == "method":
        values["calibration"]["method"] = words
    else:
        values["levels"][words] = values["levels"]["slide"]
    with pytest.raises(BundleError) as caught:
        parse(values)
    assert str(caught.value).isprintable()
