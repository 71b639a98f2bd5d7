"""The training images that a bundle carries: read as they were written, and never anything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save
from tests.bundle.small_bundle import carry, drawn_cases, model_file, write_invented
from tests.slides import sign_all

from clearmargin.bundle.card import model_card
from clearmargin.bundle.cases import Cases, load_cases
from clearmargin.bundle.read import CASES, REQUIRED, SUMS, Bundle, read_bundle
from clearmargin.bundle.schema import KeptCases
from clearmargin.bundle.write import rewrite_bundle
from clearmargin.errors import BundleError

Tensors = dict[str, np.ndarray]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return carry(write_invented(tmp_path / "plain"), tmp_path / "bundle", drawn_cases())


def check_same(one: Cases, other: Cases) -> None:
    assert one.rows == other.rows
    for name in ("features", "thumbnails", "mean", "projection"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == getattr(other, name).dtype


def test_what_was_written_is_read(bundle: Path) -> None:
    assert {entry.name for entry in bundle.iterdir()} == {*REQUIRED, *CASES, SUMS}
    check_same(load_cases(read_bundle(bundle)), drawn_cases())


def test_a_bundle_carries_none_unless_it_is_given_some(tmp_path: Path) -> None:
    plain = read_bundle(write_invented(tmp_path / "plain"))
    assert not set(CASES) & set(plain.sums)
    assert "carries" not in plain.read("MODEL_CARD.md").decode()
    with pytest.raises(BundleError, match=r"carries no training images.*--set cases\.keep=on"):
        load_cases(plain)


def test_rewriting_carries_them_along(bundle: Path, tmp_path: Path) -> None:
    before = read_bundle(bundle)
    rewrite_bundle(before, tmp_path / "same")
    changed = model_file(threshold=0.9).model_copy(update={"cases": before.model.cases})
    rewrite_bundle(before, tmp_path / "other", changed)
    assert read_bundle(tmp_path / "same").sha256 == before.sha256
    check_same(load_cases(read_bundle(tmp_path / "other")), drawn_cases())


def test_the_card_says_what_is_carried() -> None:
    named = KeptCases(images=1234, patients=17, pseudonymous=False)
    card = model_card(model_file(cases=named))
    assert "carries pictures of 1,234 training images of 17 patients" in card
    assert "their patients' ids and files' names" in card
    hidden = KeptCases(images=1234, patients=None, pseudonymous=True)
    card = model_card(model_file(cases=hidden))
    assert "1,234 training images of an unknown number of patients" in card
    assert "pseudonyms" in card


def test_a_bundle_can_be_written_anew_without_them(bundle: Path, tmp_path: Path) -> None:
    before = read_bundle(bundle)
    rewrite_bundle(before, tmp_path / "bare", before.model.model_copy(update={"cases": None}))
    bare = read_bundle(tmp_path / "bare")
    assert not set(CASES) & set(bare.sums)
    assert "carries" not in bare.read("MODEL_CARD.md").decode()
    assert {entry.name for entry in (tmp_path / "bare").iterdir()} == {*REQUIRED, SUMS}


def test_pseudonymous_cases_that_name_files_are_refused(bundle: Path, tmp_path: Path) -> None:
    check_refused(read_bundle(carry(bundle, tmp_path / "hidden", drawn_cases(), pseudonymous=True)), "or files")


@pytest.mark.parametrize("name", CASES)
def test_a_changed_byte_is_refused_and_a_missing_file_too(bundle: Path, name: str) -> None:
    content = (bundle / name).read_bytes()
    (bundle / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    read = read_bundle(bundle)  # which does not wait for what few ask for
    check_refused(read, rf"{name}: the content is not the one that SHA256SUMS names")
    with pytest.raises(BundleError, match="the content is not"):
        rewrite_bundle(read, bundle.parent / "other")
    (bundle / name).unlink()
    check_refused(read_bundle(bundle), rf"{name}: cannot be read")
    sign_all(bundle)
    with pytest.raises(BundleError, match=r"model\.json speaks of"):
        read_bundle(bundle)


def test_cases_that_the_card_does_not_tell_of_are_refused(bundle: Path) -> None:
    model = json.loads((bundle / "model.json").read_text())
    (bundle / "model.json").write_text(json.dumps(model | {"cases": None}))
    sign_all(bundle)
    with pytest.raises(BundleError, match=r"model\.json speaks of"):
        read_bundle(bundle)


def changed(bundle: Path, change: Callable[[Tensors], Tensors | None]) -> Bundle:
    """The bundle with other tensors, signed as whoever changes a bundle on purpose can."""
    tensors = load((bundle / CASES[1]).read_bytes())
    (bundle / CASES[1]).write_bytes(save(change(tensors) or tensors))
    sign_all(bundle)
    return read_bundle(bundle)


def check_refused(bundle: Bundle, match: str) -> None:
    with pytest.raises(BundleError, match=match) as caught:
        load_cases(bundle)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("name", ["features", "mean", "projection"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(bundle: Path, name: str, value: float) -> None:
    def change(tensors: Tensors) -> None:
        tensors[name].reshape(-1)[-1] = value

    check_refused(changed(bundle, change), f"{name} holds what is no finite number")


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t | {"features": t["features"][:-1]},
        lambda t: t | {"features": t["features"][:, :-1]},
        lambda t: t | {"features": t["features"].reshape(-1)},
        lambda t: t | {"mean": t["mean"][:-1]},
        lambda t: t | {"mean": t["mean"][:0], "projection": t["projection"][:0]},
        lambda t: t | {"features": t["features"][:, :0], "projection": t["projection"][:, :0]},
        lambda t: t | {"features": np.ones((12, 65), np.float16), "projection": np.ones((5, 65), np.float32)},
        lambda t: t | {"projection": t["projection"][None]},
        lambda t: t | {"thumbnails": t["thumbnails"][:-1]},
        lambda t: t | {"thumbnails": t["thumbnails"][..., :2]},
        lambda t: t | {"thumbnails": t["thumbnails"][..., 0]},
        lambda t: t | {"thumbnails": np.zeros((12, 65, 1, 3), np.uint8)},
        lambda t: t | {"thumbnails": np.zeros((12, 0, 4, 3), np.uint8)},
    ],
)
def test_shapes_that_do_not_fit_are_refused(bundle: Path, change: Callable[[Tensors], Tensors]) -> None:
    check_refused(changed(bundle, change), "the shapes do not fit 12 cases")


@pytest.mark.parametrize("name", ["features", "thumbnails", "mean", "projection"])
def test_other_types_and_other_tensors_are_refused(bundle: Path, name: str) -> None:
    check_refused(changed(bundle, lambda t: t | {name: t[name].astype(np.float64)}), f"{name} is float64, not")
    check_refused(changed(bundle, lambda t: t | {"more": t["mean"]}), "holds not exactly")
    check_refused(changed(bundle, lambda t: {key: t[key] for key in t if key not in (name, "more")}), "not exactly")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "no safetensors file"),
        (b"\x80\x04K\x01.", "its header is longer than"),
        (b"\x02\0\0\0\0\0\0\0{}", "holds not exactly"),
        (b"\xff" * 8 + b"{}", "its header is longer than"),
        ((2**20).to_bytes(8, "little") + b'{"a":' + b"[" * 2**20, "its header is longer than"),
        (b"\x10\0\0\0\0\0\0\0" + b"[[[[[[[[[[[[[[[[", "no safetensors file"),
    ],
    ids=["nothing", "pickle", "no tensors", "endless header", "long header", "no mapping"],
)
def test_bytes_that_are_no_tensors_are_refused(bundle: Path, content: bytes, match: str) -> None:
    (bundle / CASES[1]).write_bytes(content)
    sign_all(bundle)
    check_refused(read_bundle(bundle), match)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda listing: listing["cases"][0].update(patient_id="JANE"), "names other patients or files"),
        (lambda listing: listing["cases"][0].update(patient_id=None), "names other patients or files"),
        (lambda listing: listing["cases"][0].update(label="sick"), "cases.0.label: Input should be"),
        (lambda listing: listing["cases"][0].update(diagnosis="x"), "cases.0.diagnosis: Extra"),
        (lambda listing: listing["cases"][3].pop("patient_id"), "cases.3.patient_id: Field required"),
        (lambda listing: listing["cases"][3].update(patient_id=7), "cases.3.patient_id"),
        (lambda listing: listing.update(schema=2), "schema"),
        (lambda listing: listing.pop("schema"), "schema is missing"),
        (lambda listing: listing.update(cases=listing["cases"][:1]), "at least 2"),
        (lambda listing: listing.update(cases=listing["cases"][:5]), "has 5 cases and model.json says 12"),
        (lambda listing: listing.update(cases=listing["cases"] * 1000), "at most 10000"),
    ],
)
def test_a_listing_that_says_something_else_is_refused(
    bundle: Path, change: Callable[[dict], object], match: str
) -> None:
    listing = json.loads((bundle / CASES[0]).read_text())
    change(listing)
    (bundle / CASES[0]).write_text(json.dumps(listing))
    sign_all(bundle)
    check_refused(read_bundle(bundle), match)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 100_000, b"{" * 30])
def test_a_listing_that_is_no_json_is_refused(bundle: Path, content: bytes) -> None:
    (bundle / CASES[0]).write_bytes(content)
    sign_all(bundle)
    check_refused(read_bundle(bundle), "cases.json: ")
