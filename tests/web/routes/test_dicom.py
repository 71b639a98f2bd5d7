"""`POST dicom`: one DICOM image in, one DICOM object about it out."""

from __future__ import annotations

import io
from pathlib import Path

import httpx
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from tests.bundle.small_bundle import write_working
from tests.images.dicom_files import dicom_bytes, phantom
from tests.web.conftest import MakeClient, files, png
from tests.web.dicom.objects import KINDS, content_items, errors_of

from clearmargin.bundle.read import read_bundle
from clearmargin.bundle.schema import SaliencyScale
from clearmargin.explanation.methods import METHODS
from clearmargin.gate import Gate, Sizes
from clearmargin.images.preprocess import Preprocessing
from clearmargin.web.limits import ServeLimits

URL = "/api/v1/dicom"
SCALE = SaliencyScale(saturation=0.5, rule="invented", images=3, of="invented images")
SPEC = Preprocessing(width=32, height=32)


@pytest.fixture(scope="session")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a colour scale for each method."""
    folder = tmp_path_factory.mktemp("served") / "scaled"
    write_working(folder, name="residual", spec=SPEC, saliency=dict.fromkeys(METHODS, SCALE))
    return folder


@pytest.fixture
def dicom_client(make_client: MakeClient, scaled: Path) -> httpx.Client:
    return make_client(scaled)


def post(client: httpx.Client, data: bytes, *, name: str = "DOE_JANE.dcm", **query: object) -> httpx.Response:
    return client.post(URL, files=files((name, data)), params=query)


def made_of(answer: httpx.Response) -> Dataset:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/dicom"
    return pydicom.dcmread(io.BytesIO(answer.content))


@pytest.mark.parametrize("kind", ["secondary_capture", "structured_report"])
def test_the_answer_is_a_file_whose_name_is_that_of_nobody(dicom_client: httpx.Client, kind: str) -> None:
    answer = post(dicom_client, KINDS["mammogram"][0], object=kind)
    assert made_of(answer).PatientID == "P-031"
    assert answer.headers["content-disposition"] == f'attachment; filename="clearmargin_{kind}.dcm"'
    assert "DOE" not in str(answer.headers)


@pytest.mark.parametrize("kind", KINDS)
def test_both_objects_of_every_kind_of_source_are_without_error(
    kind: str, dicom_client: httpx.Client, tmp_path: Path
) -> None:
    data, frame = KINDS[kind]
    query = {} if frame is None else {"frame": frame}
    capture = made_of(post(dicom_client, data, **query))
    report = made_of(post(dicom_client, data, object="structured_report", **query))
    assert capture.StudyInstanceUID == report.StudyInstanceUID == "1.2.3.4"
    assert errors_of(capture, tmp_path) == errors_of(report, tmp_path) == []


def test_it_says_of_the_image_what_predict_says(dicom_client: httpx.Client) -> None:
    data = KINDS["mammogram"][0]
    (row,) = dicom_client.post("/api/v1/predict", files=files(("a.dcm", data))).json()["predictions"]
    report = made_of(post(dicom_client, data, object="structured_report"))
    (item,) = content_items(report, "Probability of malignant, by a classifier")
    assert item.MeasuredValueSequence[0].FloatingPointValue == pytest.approx(row["probability"], abs=1e-6)
    (point,) = content_items(report, "Sensitivity of a classifier")
    assert point.MeasuredValueSequence[0].FloatingPointValue == 0.505  # of the bundle's invented figures


def test_the_model_and_its_bundle_are_named(dicom_client: httpx.Client, scaled: Path) -> None:
    capture = made_of(post(dicom_client, KINDS["mammogram"][0]))
    assert (capture.ManufacturerModelName, capture.DeviceSerialNumber) == ("scaled", read_bundle(scaled).sha256)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_explanation_is_drawn(method: str, dicom_client: httpx.Client) -> None:
    capture = made_of(post(dicom_client, KINDS["ultrasound"][0], method=method))
    assert METHODS[method].title in capture.DerivationDescription


def test_what_the_gate_refuses_is_an_answer(make_client: MakeClient, tmp_path: Path) -> None:
    sizes = Sizes(smallest=(200, 200), largest=(300, 300), factor=1.5)
    gate = Gate(sizes=sizes, grey=None, blank=True, chosen_on="invented images")
    write_working(tmp_path / "gated", name="residual", spec=SPEC, input_gate=gate)
    client = make_client(tmp_path / "gated")
    report = made_of(post(client, KINDS["mammogram"][0], object="structured_report"))
    (decision,) = content_items(report, "Decision of a classifier, for research only")
    assert decision.ConceptCodeSequence[0].CodeValue == "refused"
    (reason,) = content_items(report, "Reason of a classifier")
    capture = made_of(post(client, KINDS["mammogram"][0]))
    assert capture.ImageComments.startswith(f"Refused: {reason.TextValue}")
    assert errors_of(capture, tmp_path) == errors_of(report, tmp_path) == []


def refusal_of(answer: httpx.Response, status: int, code: str) -> str:
    error = answer.json()["error"]
    assert (answer.status_code, error["status"], error["code"]) == (status, status, code), answer.text
    assert "JANE^SECRET" not in answer.text
    return str(error["message"])


def test_no_dicom_is_unsupported(dicom_client: httpx.Client) -> None:
    message = refusal_of(post(dicom_client, png(), name="a.png"), 415, "unsupported")
    assert message == "the image cannot be used: is not a DICOM image."


def test_several_files_are_too_many(dicom_client: httpx.Client) -> None:
    data = KINDS["mammogram"][0]
    answer = dicom_client.post(URL, files=files(("a.dcm", data), ("b.dcm", data)))
    assert "2 files" in refusal_of(answer, 422, "unprocessable")


@pytest.mark.parametrize("query", [{"object": "presentation_state"}, {"method": "tarot"}, {"frame": 0}])
def test_parameters_out_of_range_are_said(query: dict[str, object], dicom_client: httpx.Client) -> None:
    refusal_of(post(dicom_client, KINDS["mammogram"][0], **query), 422, "unprocessable")


def test_an_unknown_model_is_not_found(dicom_client: httpx.Client) -> None:
    refusal_of(post(dicom_client, KINDS["mammogram"][0], model="other"), 404, "not_found")


def test_an_image_of_no_study_is_refused(dicom_client: httpx.Client) -> None:
    message = refusal_of(post(dicom_client, dicom_bytes(phantom(), StudyInstanceUID=None)), 422, "unprocessable")
    assert message == (
        "the image cannot be used: its header has no valid Study Instance UID, which an answer in DICOM must repeat."
    )


def test_a_cut_file_is_refused(dicom_client: httpx.Client) -> None:
    assert "ends before" in refusal_of(post(dicom_client, KINDS["mammogram"][0][:-100]), 422, "unprocessable")


def test_an_image_of_many_frames_needs_one_to_be_named(dicom_client: httpx.Client) -> None:
    assert "3 frames" in refusal_of(post(dicom_client, KINDS["frames"][0]), 415, "unsupported")


def test_too_many_pixels_are_refused(make_client: MakeClient, scaled: Path) -> None:
    client = make_client(scaled, limits=ServeLimits(max_pixels=1000))
    refusal_of(post(client, KINDS["mammogram"][0]), 413, "too_large")


@pytest.mark.parametrize("kind", ["secondary_capture", "structured_report"])
def test_an_answer_that_is_sent_again_is_refused(kind: str, dicom_client: httpx.Client) -> None:
    once = post(dicom_client, KINDS["mammogram"][0], object=kind).content
    message = refusal_of(post(dicom_client, once), 415, "unsupported")
    assert ("captured or derived" in message) or ("structured report" in message)
    refusal_of(dicom_client.post("/api/v1/predict", files=files(("a.dcm", once))), 415, "unsupported")


@pytest.mark.real
@pytest.mark.parametrize("name", ["MG_Explicit_Little", "US_Explicit_Big_RGB"])
def test_real_images_are_answered(name: str, real_data: Path, dicom_client: httpx.Client, tmp_path: Path) -> None:
    data = (real_data / "dicom" / f"{name}.dcm").read_bytes()
    source = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
    for kind in ("secondary_capture", "structured_report"):
        made = made_of(post(dicom_client, data, object=kind))
        assert made.StudyInstanceUID == source.StudyInstanceUID
        assert str(made.PatientName) == str(source.PatientName)
        assert errors_of(made, tmp_path) == []


@pytest.mark.parametrize("name", ["examples_rgb_color.dcm", "examples_palette.dcm", "examples_ybr_color.dcm"])
def test_files_that_come_with_pydicom_are_answered_or_refused_in_one_line(
    name: str, dicom_client: httpx.Client, tmp_path: Path
) -> None:
    path = get_testdata_file(name, download=False)
    assert path is not None
    answer = post(dicom_client, Path(path).read_bytes(), object="structured_report", frame=1)
    if answer.status_code == 200:
        assert errors_of(made_of(answer), tmp_path) == []
    else:
        assert answer.json()["error"]["code"] in ("unsupported", "unprocessable")
