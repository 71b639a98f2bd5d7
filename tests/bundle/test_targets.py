"""What is exported computes what the bundle computes, and says how it is used; a file that does not is not written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from tests.bundle.small_bundle import carry, drawn_cases, every_choice, pictures, sign, write_network, write_working

import clearmargin
from clearmargin.bundle.onnx_check import check_onnx
from clearmargin.bundle.read import read_bundle
from clearmargin.bundle.schema import Context
from clearmargin.bundle.targets import METADATA, TARGETS, how_to_use
from clearmargin.cli import main
from clearmargin.context import Grid
from clearmargin.data.phantom import draw_patch
from clearmargin.errors import BundleError, ClearmarginError, UsageError
from clearmargin.images.preprocess import Preprocessing
from clearmargin.models import build_model
from clearmargin.types import OperatingPoint

SPEC = Preprocessing(width=24, height=24, mean=0.4, std=0.3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("targets") / "bundle"
    write_working(place, name="cbis_ddsm", spec=SPEC)
    return place


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    (tmp_path / "copied").mkdir()
    for file in folder.iterdir():
        (tmp_path / "copied" / file.name).write_bytes(file.read_bytes())
    return tmp_path / "copied"


@pytest.fixture
def patches(tmp_path: Path) -> list[Path]:
    """Real files at their own sizes, which the preprocessing has to fit."""
    paths = []
    for seed, px in enumerate((20, 24, 61)):
        paths.append(tmp_path / f"{px}.png")
        Image.fromarray(draw_patch(1, seed, px)).save(paths[-1])
    return paths


def logits(content: bytes, images: Any) -> Any:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": images})[0]


def test_the_onnx_file_computes_what_the_bundle_does_and_says_how_to_use_it(folder: Path, tmp_path: Path) -> None:
    made = clearmargin.export(folder, tmp_path / "new" / "model.onnx", to="onnx")
    content, bundle = made.path.read_bytes(), read_bundle(folder)
    onnx.checker.check_model(onnx.load_model_from_string(content))
    check_onnx(content, "model.onnx")
    images = pictures(SPEC, 5)
    np.testing.assert_array_equal(logits(content, images), logits(bundle.read("model.onnx"), images))
    assert made.difference is not None
    assert 0 <= made.difference < 1e-5
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map[METADATA]) == how_to_use(bundle)
    how = how_to_use(bundle)
    assert how["calibration"] == {"method": "temperature", "temperature": 1.2345}
    assert (how["operating_point"]["threshold"], how["labels"]) == (0.4321, ["benign", "malignant"])
    assert Preprocessing(**how["preprocessing"]) == SPEC
    facts = " ".join(made.facts)
    assert "'images' uint8 (B, 24, 24, 3), RGB" in facts
    assert "on 8 images and 12 random ones" in facts


def test_images_are_compared_at_their_own_sizes(
    folder: Path, patches: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clearmargin.bundle import export

    seen: list[Any] = []
    parity = export.parity

    def watched(deployed: Any, content: bytes, images: Any) -> float:
        seen.append(images)
        return parity(deployed, content, images)

    monkeypatch.setattr(export, "parity", watched)
    clearmargin.export(folder, tmp_path / "model.onnx", to="onnx", images=patches)
    np.testing.assert_array_equal(seen[0], np.stack([SPEC.read(path) for path in patches]))
    assert [len(batch) for batch in seen[1:]] == [1, 3, 8]


def test_a_network_that_is_not_that_of_the_weights_is_not_exported(copied: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_network(other, build_model("cbis_ddsm", SPEC.shape, seed=9), name="cbis_ddsm", spec=SPEC)
    (copied / "model.onnx").write_bytes((other / "model.onnx").read_bytes())
    sign(copied)
    (tmp_path / "model.onnx").write_bytes(b"mine")
    with pytest.raises(BundleError, match=r"model\.onnx differs from weights\.safetensors by .* nothing was written"):
        clearmargin.export(copied, tmp_path / "model.onnx", to="onnx", force=True)
    assert (tmp_path / "model.onnx").read_bytes() == b"mine"
    assert not [file for file in tmp_path.iterdir() if "partial" in file.name]


def test_calibration_and_abstention_go_along(tmp_path: Path) -> None:
    write_working(tmp_path / "bundle", name="cbis_ddsm", spec=SPEC, **every_choice())
    how = how_to_use(read_bundle(tmp_path / "bundle"))
    assert how["calibration"] == {"method": "platt", "slope": 0.8, "intercept": -0.25}
    assert how["cannot_tell"] == [0.4123, 0.5231]


def test_of_a_bundle_with_a_context_it_is_said_that_the_network_of_patches_is_alone(
    copied: Path, tmp_path: Path
) -> None:
    point = OperatingPoint("balanced", "largest balanced accuracy", 0.3)
    grid = Context(
        grid=Grid(step=50, scale=1.5), temperature=1.0, operating_points={"balanced": point}, operating_point="balanced"
    )
    model = read_bundle(copied).model.model_copy(update={"context": grid})
    (copied / "model.json").write_text(model.to_json())
    sign(copied)
    made = clearmargin.export(copied, tmp_path / "model.onnx", to="onnx")
    assert "the patch network alone" in " ".join(made.facts)
    assert "compare it with predict --no-context, or predict(..., context=False)" in " ".join(made.facts)


def test_the_single_file_is_the_bundle_and_predicts_the_same(folder: Path, patches: list[Path], tmp_path: Path) -> None:
    made = clearmargin.export(folder, tmp_path / "model.clearmargin", to="clearmargin")
    again = clearmargin.export(made.path, tmp_path / "again.clearmargin", to="clearmargin")
    assert made.path.read_bytes() == again.path.read_bytes()
    one, other = clearmargin.load_bundle(made.path), clearmargin.load_bundle(folder)
    assert one.predict(patches)["probability"].tolist() == other.predict(patches)["probability"].tolist()
    exported = [
        clearmargin.export(place, tmp_path / f"{n}.onnx", to="onnx") for n, place in enumerate((folder, made.path))
    ]
    assert exported[0].path.read_bytes() == exported[1].path.read_bytes()


@pytest.mark.parametrize("pseudonymous", [False, True])
def test_the_single_file_says_whose_pictures_it_holds_and_leaves_them_out_on_demand(
    folder: Path, patches: list[Path], tmp_path: Path, pseudonymous: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    carrying = carry(folder, tmp_path / "carrying", drawn_cases(), pseudonymous=pseudonymous)
    made = clearmargin.export(carrying, tmp_path / "all.clearmargin", to="clearmargin")
    ids = "pseudonyms of their patients" if pseudonymous else "their patients' ids and files' names"
    assert f"pictures of 12 training images of 3 patients are in it, with {ids}" in " ".join(made.facts)
    bare = tmp_path / "bare.clearmargin"
    code, out, _ = run(capsys, "export", carrying, "--to", "clearmargin", "--out", bare, "--without-cases")
    assert (code, "no picture of a patient is in it" in out) == (0, True)
    bundle, content = read_bundle(bare), bare.read_bytes()
    assert bundle.model == read_bundle(carrying).model.model_copy(update={"cases": None})
    assert b"P-1" not in content
    assert b"carries pictures" not in bundle.read("MODEL_CARD.md")
    one, other = clearmargin.load_bundle(bare), clearmargin.load_bundle(carrying)
    assert one.predict(patches)["probability"].tolist() == other.predict(patches)["probability"].tolist()


def test_options_that_would_do_nothing_are_refused(folder: Path, patches: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--images: with --to clearmargin .* nothing is compared"):
        clearmargin.export(folder, tmp_path / "m.clearmargin", to="clearmargin", images=patches)
    with pytest.raises(UsageError, match="--without-cases: a file for --to onnx holds no training images"):
        clearmargin.export(folder, tmp_path / "m.onnx", to="onnx", without_cases=True)
    with pytest.raises(UsageError, match="It is one file; a bundle folder can be copied"):
        clearmargin.export(folder, tmp_path / "m", to="clearmargin")
    assert not list(tmp_path.glob("m*"))


def test_every_target_refuses_what_it_cannot_write(folder: Path, tmp_path: Path) -> None:
    for name, target in TARGETS.items():
        taken = tmp_path / f"taken{target.suffixes[0]}"
        taken.write_bytes(b"mine")
        (tmp_path / f"folder{target.suffixes[0]}").mkdir()
        for out, why in [
            (tmp_path / "model.txt", "ends in"),
            (tmp_path / "model", "ends in"),
            (taken, "is there already"),
            (tmp_path / f"folder{target.suffixes[0]}", "is a folder"),
            (taken / f"model{target.suffixes[0]}", "is not a folder"),
        ]:
            with pytest.raises(UsageError, match=why):
                clearmargin.export(folder, out, to=name)
        with pytest.raises(UsageError, match="not writable"):
            clearmargin.export(folder, f"/proc/model{target.suffixes[0]}", to=name)
        assert taken.read_bytes() == b"mine"
        clearmargin.export(folder, taken, to=name, force=True)
        assert taken.read_bytes() != b"mine"
    with pytest.raises(UsageError, match=r"there is no target 'onxx'; did you mean 'onnx'\?"):
        clearmargin.export(folder, tmp_path / "model.onnx", to="onxx")


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_the_command_says_what_it_wrote(
    folder: Path, patches: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word for path in patches for word in ("--images", path)]
    code, out, _ = run(capsys, "export", folder, "--to", "onnx", "--out", tmp_path / "m.onnx", *given)
    assert code == 0
    assert re.search(r"m\.onnx: [\d,]+ bytes\n", out)
    assert re.search(r"on 3 images and 12 random ones: largest difference \d\.\de-\d\d \(limit 1e-4", out)
    code, out, _ = run(capsys, "export", folder, "--to", "clearmargin", "--out", tmp_path / "m.clearmargin")
    assert (code, "holds   all of the bundle" in out) == (0, True)
    code, out, _ = run(capsys, "predict", tmp_path / "m.clearmargin", patches[0], "--format", "json")
    assert code == 0
    assert json.loads(out)["decision"] in ("benign", "malignant")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--to", "onnx", "--out", "m.txt"], 2),
        (["--to", "h5", "--out", "m.h5"], 2),
        (["--out", "m.onnx"], 2),
        (["--to", "onnx"], 2),
        (["--to", "onnx", "--out", "/proc/m.onnx"], 2),
        (["--to", "onnx", "--out", "m.onnx", "--images", "nowhere.png"], 3),
    ],
)
def test_a_wrong_command_is_one_line_and_the_right_exit_code(  # noqa: PLR0917
    folder: Path, words: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    found, out, err = run(capsys, "export", folder, *words)
    assert (found, out, err.count("\n")) == (code, "", 1)
    found, _, err = run(capsys, "export", tmp_path / "no_bundle", "--to", "onnx", "--out", "m.onnx")
    assert (found, err.count("\n")) == (4, 1)


def test_an_image_that_cannot_be_read_ends_the_export(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ClearmarginError, match=r"broken\.png"):
        clearmargin.export(folder, tmp_path / "m.onnx", to="onnx", images=[tmp_path / "broken.png"])
    assert not (tmp_path / "m.onnx").exists()
