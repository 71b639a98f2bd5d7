"""One door for predictions: the same answer however an image comes in."""

from __future__ import annotations

import dataclasses
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from numpy.typing import NDArray
from tests.bundle.small_bundle import sign
from tests.predict.conftest import SPEC

from clearmargin.bundle.read import read_bundle
from clearmargin.decision import Abstention, Beta, Calibration, Isotonic, Level, Platt, Pooling, decide, probability
from clearmargin.errors import BundleError, DataError
from clearmargin.images.limits import Limits
from clearmargin.images.read import EncodedImage, read_encoded, read_image
from clearmargin.predict import predictor as module
from clearmargin.predict.pooled import pool_predictions
from clearmargin.predict.predictor import PREDICTION_KEYS, Predictor, load_bundle, prediction_row
from clearmargin.types import Prediction, Record


def records(files: list[Path]) -> list[Record]:
    return [Record(str(file)) for file in files]


def in_batches_of(predictor: Predictor, size: int) -> Predictor:
    predictor._session.batch = size
    return predictor


def deciding(predictor: Predictor, **changes: Any) -> Predictor:
    """The same network under a model.json with other fields."""
    changed = predictor.bundle.model.model_copy(update=changes)
    return Predictor(dataclasses.replace(predictor.bundle, model=changed))


def with_threshold(predictor: Predictor, threshold: float) -> Predictor:
    point = dataclasses.replace(predictor.bundle.model.decision_point, threshold=threshold)
    return deciding(predictor, operating_points={"balanced": point})


def by_hand(bundle: Path, files: list[Path]) -> NDArray[np.float64]:
    """Probabilities from the ONNX file alone, one image at a time."""
    session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    logits = [session.run(None, {"images": SPEC.apply(read_image(file))[np.newaxis]})[0][0] for file in files]
    return 1 / (1 + np.exp(-np.array(logits, dtype=np.float64) / 1.7))


def test_probability_and_decision_are_those_of_the_bundle(
    predictor: Predictor, bundle: Path, image_files: list[Path]
) -> None:
    table = predictor.predict(image_files)
    expected = by_hand(bundle, image_files)
    np.testing.assert_allclose(table["probability"].to_numpy(dtype=float), expected, rtol=0, atol=1e-6)
    assert table["decision"].tolist() == ["malignant" if value >= 0.46 else "benign" for value in expected]
    assert table["decision"].nunique() == 2
    assert table["reason"].isna().all()


@pytest.mark.parametrize("size", [1, 2, 7, 39, 40, 256])
def test_the_size_of_the_batches_does_not_matter(predictor: Predictor, image_files: list[Path], size: int) -> None:
    expected = [next(iter(predictor.predict_records([record]))) for record in records(image_files)]
    together = list(in_batches_of(predictor, size).predict_records(records(image_files)))
    assert [one.record for one in together] == records(image_files)
    assert [one.decision for one in together] == [one.decision for one in expected]
    for one, other in zip(together, expected, strict=True):
        assert one.probability == pytest.approx(other.probability, abs=1e-6)
        assert one.logit == pytest.approx(other.logit, abs=1e-5)


def test_the_order_of_the_images_does_not_matter(predictor: Predictor, image_files: list[Path]) -> None:
    in_batches_of(predictor, 8)
    first = predictor.predict(image_files).set_index("path")
    shuffled = [image_files[row] for row in np.random.default_rng(1).permutation(len(image_files))]
    again = predictor.predict(shuffled)
    assert again["path"].tolist() == [str(file) for file in shuffled]
    again = again.set_index("path").loc[first.index]
    np.testing.assert_allclose(
        again["probability"].to_numpy(dtype=float), first["probability"].to_numpy(dtype=float), rtol=0, atol=1e-6
    )
    assert again["decision"].tolist() == first["decision"].tolist()


def test_unreadable_images_are_refused_with_the_reason_and_the_others_go_on_in_order(
    predictor: Predictor, image_files: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "cut.png").write_bytes(image_files[0].read_bytes()[:60])
    bad = [tmp_path / name for name in ("missing.png", "empty.png", "text.png", "cut.png")]
    files = [*bad[:1], *image_files[:15], *bad[1:3], *image_files[15:], *bad[3:]]
    good = {one.record.path: one for one in predictor.predict_records(records(image_files))}
    answers = list(in_batches_of(predictor, 8).predict_records(records(files)))
    assert [one.record.path for one in answers] == [str(file) for file in files]
    for one in answers:
        if Path(one.record.path) in bad:
            assert (one.decision, one.probability, one.logit) == ("refused", None, None)
            assert one.reason
            assert one.record.path not in one.reason
        else:
            assert one.reason is None
            assert one.probability == pytest.approx(good[one.record.path].probability, abs=1e-6)
    reasons = {Path(one.record.path).name: one.reason for one in answers if one.reason}
    assert "no such file" in str(reasons["missing.png"])
    assert "empty" in str(reasons["empty.png"])
    assert len(set(reasons.values())) == 4


@pytest.mark.parametrize("number", [1, 3])
def test_when_every_image_is_unreadable_every_image_is_refused(predictor: Predictor, number: int) -> None:
    answers = list(predictor.predict_records([Record(f"/nowhere/{row}.png") for row in range(number)]))
    assert [one.decision for one in answers] == ["refused"] * number


def test_no_images_no_predictions(predictor: Predictor) -> None:
    assert list(predictor.predict_records([])) == []
    table = predictor.predict([])
    assert table.empty
    assert tuple(table.columns) == PREDICTION_KEYS


def test_a_batch_for_each_core_and_one_are_taken_before_their_predictions_are_given(
    predictor: Predictor, image_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    taken = 0

    def counted() -> Iterator[Record]:
        nonlocal taken
        for _ in range(5):
            for record in records(image_files):
                taken += 1
                yield record

    ahead = []
    for given, _ in enumerate(in_batches_of(predictor, 16).predict_records(counted())):
        ahead.append(taken - given)
    assert taken == len(ahead) == 200
    assert max(ahead) <= 3 * 16


def test_nothing_is_read_before_it_is_asked_for(predictor: Predictor) -> None:
    def never() -> Iterator[Record]:
        raise AssertionError("a record was taken")
        yield

    predictor.predict_records(never())


def test_an_error_of_the_records_own_reaches_the_caller(predictor: Predictor, image_files: list[Path]) -> None:
    def broken() -> Iterator[Record]:
        yield from records(image_files)
        raise ZeroDivisionError

    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        list(in_batches_of(predictor, 8).predict_records(broken()))
    assert threading.active_count() == before


@pytest.fixture
def slow_reading(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two threads that take their time; gives the paths that were read."""
    paths: list[str] = []

    def read(path: str, limits: Limits) -> EncodedImage:
        time.sleep(0.05)
        paths.append(path)
        return read_encoded(path, limits)

    monkeypatch.setattr(module, "read_encoded", read)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    return paths


@pytest.mark.parametrize("how", ["close", "throw"])
def test_who_stops_listening_does_not_wait_for_what_is_left(
    predictor: Predictor, image_files: list[Path], slow_reading: list[str], how: str
) -> None:
    before = threading.active_count()
    answers = in_batches_of(predictor, 40).predict_records(records(image_files * 3))
    next(answers)  # the next 40 are under way
    begun = len(slow_reading)
    if how == "close":
        answers.close()  # type: ignore[attr-defined]
    else:
        with pytest.raises(KeyboardInterrupt):
            answers.throw(KeyboardInterrupt)  # type: ignore[attr-defined]
    assert len(slow_reading) <= begun + 4  # what two threads had in hand, not the forty
    assert threading.active_count() == before


@pytest.fixture
def no_garbage() -> Iterator[None]:
    """No garbage of other tests is collected: Python drops a Ctrl-C that comes inside a weak reference's callback."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_ctrl_c_while_images_are_read_leaves_the_rest_unread(
    predictor: Predictor, image_files: list[Path], slow_reading: list[str], no_garbage: None
) -> None:
    before = threading.active_count()
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    many = image_files * 60
    with pytest.raises(KeyboardInterrupt):
        list(predictor.predict_records(records(many)))
    assert len(slow_reading) < len(many) / 2
    timer.join()
    assert threading.active_count() == before


def test_a_predictor_may_be_shared_between_threads(predictor: Predictor, image_files: list[Path]) -> None:
    expected = predictor.predict(image_files)
    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(lambda _: predictor.predict(image_files), range(8)))
    for table in tables:
        pd.testing.assert_frame_equal(table, expected, atol=1e-6)


def test_a_table_keeps_what_it_says_of_each_image(predictor: Predictor, image_files: list[Path]) -> None:
    table = pd.DataFrame({
        "label": [0, 1, 1],
        "path": [str(file) for file in image_files[:3]],
        "patient_id": ["P1", "P2", None],
        "slide_id": ["S1", None, None],
        "x": [101, 151, 201],
        "y": [1, 51, 101],
    }, index=[7, 5, 3])  # fmt: skip
    answers = predictor.predict(table)
    assert tuple(answers.columns) == PREDICTION_KEYS
    assert answers["path"].tolist() == table["path"].tolist()
    assert answers[["x", "y"]].to_numpy().tolist() == [[101, 1], [151, 51], [201, 101]]
    assert answers["patient_id"].fillna("").tolist() == ["P1", "P2", ""]
    assert answers["slide_id"].fillna("").tolist() == ["S1", "", ""]
    assert answers["probability"].tolist() == pytest.approx(predictor.predict(image_files[:3])["probability"].tolist())


def test_whole_numbers_beside_missing_ones_stay_whole(predictor: Predictor, image_files: list[Path]) -> None:
    table = pd.DataFrame({
        "path": [str(file) for file in image_files[:2]],
        "patient_id": [8863, float("nan")],
        "x": [101, None],
        "y": pd.array([51, None], dtype="Int64"),
    })  # fmt: skip
    assert table["x"].dtype == np.float64
    seen: list[Record] = []
    predictor.predict_records = lambda source, **_: iter(seen.extend(source) or ())  # type: ignore[method-assign,func-returns-value]
    predictor.predict(table)
    assert seen == [
        Record(str(image_files[0]), patient_id="8863", x=101, y=51),
        Record(str(image_files[1])),
    ]
    assert isinstance(seen[0].x, int)


def test_a_coordinate_that_is_no_whole_number_is_a_data_error(predictor: Predictor, image_files: list[Path]) -> None:
    for value in (10.5, "left"):
        with pytest.raises(DataError, match=rf"'{value}' for an x or y; they are whole numbers"):
            predictor.predict(pd.DataFrame({"path": [str(image_files[0])], "x": [value]}))


def test_a_table_without_paths_names_the_columns_it_has(predictor: Predictor) -> None:
    with pytest.raises(DataError, match="the table has no column 'path'; found file, label"):
        predictor.predict(pd.DataFrame({"file": ["a.png"], "label": [1]}))


def test_a_row_without_a_path_is_refused(predictor: Predictor, image_files: list[Path]) -> None:
    table = predictor.predict(pd.DataFrame({"path": [str(image_files[0]), None]}))
    assert table["decision"].tolist()[1] == "refused"
    assert table["path"].tolist()[1] == ""


@pytest.mark.parametrize("kind", [str, Path])
def test_one_path_is_one_image(predictor: Predictor, image_files: list[Path], kind: type) -> None:
    table = predictor.predict(kind(image_files[3]))
    assert table["path"].tolist() == [str(image_files[3])]
    assert table["decision"].tolist() != ["refused"]


def test_decoded_pixels_give_what_their_file_gives(predictor: Predictor, image_files: list[Path]) -> None:
    for file in image_files[:12]:
        (expected,) = predictor.predict_records([Record(str(file))])
        answer = predictor.predict_pixels(read_image(file))
        assert answer.probability == pytest.approx(expected.probability, abs=1e-6)
        assert answer.decision == expected.decision


def test_a_probability_at_the_threshold_is_malignant(predictor: Predictor, image_files: list[Path]) -> None:
    record = Record(str(image_files[0]))
    (answer,) = predictor.predict_records([record])
    assert answer.probability is not None
    (at,) = with_threshold(predictor, answer.probability).predict_records([record])
    (above,) = with_threshold(predictor, float(np.nextafter(answer.probability, 1))).predict_records([record])
    assert (at.decision, above.decision) == ("malignant", "benign")
    assert at.probability == above.probability == answer.probability


def test_a_run_folder_or_a_text_path_loads_the_same_bundle(bundle: Path, predictor: Predictor) -> None:
    assert load_bundle(str(bundle.parent)).bundle.sha256 == predictor.bundle.sha256


def test_a_row_has_every_key_and_plain_values() -> None:
    record = Record("a.png", patient_id="P1", slide_id="S1", x=3, y=4)
    row = prediction_row(Prediction(record, logit=0.5, probability=0.6, decision="benign"))
    assert tuple(row) == PREDICTION_KEYS
    assert list(row.values()) == ["a.png", "P1", "S1", 3, 4, 0.6, "benign", None]


@pytest.fixture
def copied(bundle: Path, tmp_path: Path) -> Path:
    for file in bundle.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_a_network_for_other_images_than_model_json_says_is_a_bundle_error(copied: Path) -> None:
    text = (copied / "model.json").read_text()
    (copied / "model.json").write_text(text.replace('"width": 20', '"width": 21'))
    sign(copied)
    with pytest.raises(BundleError, match=r"takes images of .* \(16, 20, 3\), model\.json says \(16, 21, 3\)"):
        load_bundle(copied)


def test_a_signed_file_that_is_no_network_is_a_bundle_error(copied: Path) -> None:
    (copied / "model.onnx").write_bytes(b"\x80\x04 no network")
    sign(copied)
    with pytest.raises(BundleError, match=r"model\.onnx: refused, since it ") as caught:
        load_bundle(copied)
    assert "\n" not in str(caught.value)


def test_a_bundle_that_was_read_and_then_changed_is_not_used(copied: Path) -> None:
    read = read_bundle(copied)
    (copied / "model.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match="the content is not"):
        Predictor(read)


def test_predicting_imports_neither_torch_nor_pandas(bundle: Path, image_files: list[Path]) -> None:
    code = (
        "import sys\n"
        "from clearmargin.predict.predictor import load_bundle, prediction_row\n"
        "from clearmargin.types import Record\n"
        "answers = load_bundle(sys.argv[1]).predict_records(Record(path) for path in sys.argv[2:])\n"
        "print([prediction_row(answer)['decision'] for answer in answers])\n"
        "heavy = {'torch', 'pandas', 'sklearn', 'scipy', 'matplotlib', 'lightning_fabric', 'onnx'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", code, str(bundle), *map(str, image_files[:5])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    decisions, heavy = done.stdout.splitlines()
    assert decisions.count("benign") + decisions.count("malignant") == 5
    assert heavy == "[]"


@pytest.mark.parametrize(
    "calibration",
    [
        Platt(slope=0.6, intercept=0.2),
        Beta(a=0.5, b=1.4, c=-0.1),
        Isotonic(logits=(-1.0, 0.0, 1.0), probabilities=(0.1, 0.45, 0.8)),
    ],
    ids=lambda calibration: calibration.method,
)
def test_probabilities_are_those_of_the_bundles_calibration(
    predictor: Predictor, image_files: list[Path], calibration: Calibration
) -> None:
    answers = list(deciding(predictor, temperature=1.0, calibration=calibration).predict_records(records(image_files)))
    logits = np.array([one.logit for one in answers], dtype=np.float64)
    expected = probability(logits, calibration)
    assert [one.probability for one in answers] == expected.tolist()
    assert [one.decision for one in answers] == decide(expected, 0.46).tolist()
    before = [one.logit for one in predictor.predict_records(records(image_files))]
    assert logits.tolist() == pytest.approx(before)


def test_in_the_region_of_abstention_the_decision_is_withheld_with_the_reason(
    predictor: Predictor, image_files: list[Path]
) -> None:
    plain = list(predictor.predict_records(records(image_files)))
    values = np.array([one.probability for one in plain], dtype=np.float64)
    low, high = np.quantile(values, (0.3, 0.6)).tolist()
    region = Abstention(coverage=0.85, low=low, high=high, n_units=30, unit="patient")
    answers = list(deciding(predictor, conformal=region).predict_records(records(image_files)))
    inside = ((values >= low) & (values <= high)).tolist()
    assert 5 < sum(inside) < 35
    for one, before, is_inside in zip(answers, plain, inside, strict=True):
        assert (one.logit, one.probability) == (before.logit, before.probability)
        assert one.decision == ("abstain" if is_inside else before.decision)
        assert one.reason == ("too uncertain for the promised coverage of 0.85" if is_inside else None)
    (pixels,) = np.flatnonzero(inside)[:1].tolist()
    assert deciding(predictor, conformal=region).predict_pixels(read_image(image_files[pixels])).decision == "abstain"


def test_a_promise_without_a_region_withholds_nothing(predictor: Predictor, image_files: list[Path]) -> None:
    region = Abstention(coverage=0.85, low=None, high=None, n_units=30, unit="patient")
    answers = list(deciding(predictor, conformal=region).predict_records(records(image_files)))
    assert answers == list(predictor.predict_records(records(image_files)))


def test_slides_and_patients_are_decided_by_the_bundles_own_rule_for_them(
    predictor: Predictor, image_files: list[Path]
) -> None:
    levels = {
        "slide": Level(
            threshold=0.5, pooling=Pooling(method="top_k", k=2), calibration=Platt(slope=1.2, intercept=0.1)
        ),
        "patient": Level(threshold=0.45),
    }
    whole = deciding(predictor, levels=levels, conformal=Abstention(
        coverage=0.9, low=0.4, high=0.5, n_units=30, unit="patient"
    ))  # fmt: skip
    many = [
        Record(str(file), patient_id=f"P{number % 5}", slide_id=f"S{number % 2}")
        for number, file in enumerate(image_files)
    ]
    many.insert(7, Record("/nowhere/1.png", patient_id="P1", slide_id="S0"))
    answers = list(whole.predict_records(many))
    for level, number in (("slide", 10), ("patient", 5)):
        pooled = whole.pool(answers, level)  # type: ignore[arg-type]
        assert pooled == pool_predictions(answers, level, rule=levels[level])  # type: ignore[arg-type]
        assert len(pooled) == number
        assert sum(one.n_images for one in pooled) == 40
        assert sum(one.n_refused for one in pooled) == 1
    values = np.array([one.probability for one in answers if one.record.patient_id == "P0"], dtype=np.float64)
    assert whole.pool(answers, "patient")[0].probability == pytest.approx(values.mean())


def test_a_level_that_the_bundle_does_not_decide_is_a_bundle_error_that_says_why(predictor: Predictor) -> None:
    with pytest.raises(BundleError, match="this model does not decide by slide: the bundle holds no rule for it"):
        predictor.pool([], "slide")
    told = deciding(predictor, no_levels={"patient": "patients are unknown"}, levels={"slide": Level(threshold=0.5)})
    with pytest.raises(BundleError, match="this model does not decide by patient: patients are unknown"):
        told.pool([], "patient")
    assert told.pool([], "slide") == []
