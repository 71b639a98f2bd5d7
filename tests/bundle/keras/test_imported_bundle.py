"""An imported bundle goes through every command, and says what is not known of it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.bundle.keras.files import write_small
from tests.bundle.small_bundle import sign

import clearmargin
from clearmargin.bundle.keras import importing
from clearmargin.bundle.keras.network import read_network
from clearmargin.bundle.keras.real import Answer
from clearmargin.bundle.keras.write import write_keras
from clearmargin.bundle.read import read_bundle
from clearmargin.bundle.torch_model import load_torch_model
from clearmargin.cli import main
from clearmargin.errors import BundleError, UsageError
from clearmargin.models.contract import Deployed


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("imported")
    absent = Answer(None, "Keras is not installed", installed=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importing, "ask_keras", lambda path, pixels: absent)
        patch.setattr(importing, "read_isolated", read_network)
        clearmargin.import_keras(write_small(root / "model.h5"), root / "bundle", scale="1/255")
    return root / "bundle"


def test_nothing_is_made_up(bundle: Path) -> None:
    model = read_bundle(bundle).model
    lineage = model.lineage
    facts = (
        lineage.recipe,
        lineage.seed,
        lineage.data_sha256,
        lineage.split_sha256,
        lineage.precision,
        lineage.metrics,
    )
    assert set(facts) == {None}
    assert lineage.split == "unknown"
    assert lineage.imported is not None
    assert (lineage.imported.format, lineage.imported.keras_version) == ("h5", "2.2.4")
    assert (model.decision_point.name, model.decision_point.threshold) == ("assumed", 0.5)
    assert (model.conformal, model.levels, model.context) == (None, {}, None)
    assert (model.preprocessing.mean, model.preprocessing.std) == (0.0, 1.0)
    assert (model.preprocessing.fit, model.preprocessing.interpolation) == ("stretch", "bilinear")
    card = (bundle / "MODEL_CARD.md").read_text()
    for text in ("**Imported**", "None is known", "holds no threshold", "written by Keras 2.2.4"):
        assert text in card
    assert "nothing stops images of another kind: it has no gate" in card
    assert "its gate stops" not in card
    assert "None," not in card
    assert "`None`" not in card
    assert "seed" not in card


def test_torch_and_onnx_agree(bundle: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = Deployed(load_torch_model(read_bundle(bundle)), 0, 1).eval()(torch.from_numpy(images))[0].numpy()
    np.testing.assert_allclose(clearmargin.load_bundle(bundle).logits(images), expected, atol=1e-5)


def test_every_command_takes_it(
    bundle: Path, make_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_folder(patients=8, per_class=4, px=16)
    quick = ["--set", "evaluate.resamples=100"]
    assert main(["evaluate", str(bundle), str(data), "--out", str(tmp_path / "before"), *quick]) == 0
    shown = capsys.readouterr().out
    assert "Malignant at or above 0.500 (assumed, chosen on no data)." in shown
    metrics = json.loads((tmp_path / "before" / "metrics.json").read_text())
    assert "stamp" not in metrics["protocol"]
    assert metrics["protocol"]["bundle"]["recipe"] is None
    assert main(["report", str(tmp_path / "before")]) == 0
    text = re.sub(r"<[^>]+>", " ", (tmp_path / "before" / "report.html").read_text())
    assert "recipe None" not in text
    assert main(["calibrate", str(bundle), str(data), "--out", str(tmp_path / "new")]) == 0
    anew = read_bundle(tmp_path / "new").model
    assert anew.lineage.recalibrated is not None
    assert anew.lineage.imported is not None
    assert anew.decision_point.name != "assumed"
    card = (tmp_path / "new" / "MODEL_CARD.md").read_text()
    assert "How it decides was chosen anew" in card
    assert "None is known" in card
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "new"), str(data), "--format", "json"]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 64
    assert "Note" not in captured.err
    assert main(["predict", str(bundle), str(data)]) == 0
    assert "its threshold of 0.5 is assumed" in capsys.readouterr().err


def test_a_graph_that_someone_signed_anew_is_checked(bundle: Path, tmp_path: Path) -> None:
    content = json.loads((bundle / "model.json").read_text())

    def changed(change: Callable[[dict[str, object]], None]) -> Path:
        folder = tmp_path / "changed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(bundle, folder)
        own = json.loads(json.dumps(content))
        change(own)
        (folder / "model.json").write_text(json.dumps(own))
        sign(folder)
        return folder

    def wide(model: dict[str, object]) -> None:
        model["architecture"]["graph"]["nodes"][0]["filters"] = 2**20  # type: ignore[index]

    def huge(model: dict[str, object]) -> None:
        wide(model)
        model["architecture"]["graph"]["nodes"][0]["kernel"] = [1024, 1024]  # type: ignore[index]
        model["architecture"]["graph"]["nodes"][0]["padding"] = "same"  # type: ignore[index]

    def other_size(model: dict[str, object]) -> None:
        model["architecture"]["graph"]["input"] = [9, 9, 3]  # type: ignore[index]

    def made_up(model: dict[str, object]) -> None:
        model["lineage"]["imported"] = None  # type: ignore[index]

    def nameless(model: dict[str, object]) -> None:
        model["architecture"]["graph"] = None  # type: ignore[index]

    with pytest.raises(BundleError, match="do not fit the architecture"):
        load_torch_model(read_bundle(changed(wide)))
    for change, message in (
        (huge, "graph"),
        (other_size, "takes"),
        (made_up, "lineage"),
        (nameless, "belong together"),
    ):
        with pytest.raises(BundleError, match=message):
            read_bundle(changed(change))


@pytest.mark.usefixtures("no_keras")
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--size", "50"], 2, "--size 50: give width and height"),
        (["--scale", "1/0"], 2, "--scale 1/0: give a number or a fraction"),
        (["--scale", "1/"], 2, "--scale 1/: give a number or a fraction"),
        (["--scale", "nan"], 2, "--scale nan"),
        (["--scale", "-1"], 2, "--scale -1: must be above 0"),
        (["--scale", "1e-300"], 2, "beyond what pixels"),
        (["--malignant-index", "2"], 2, "--malignant-index"),
        (["--size", "9,8"], 3, "8×8 pixels, not of 9×8"),
    ],
)
def test_options_are_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    path = write_small(tmp_path / "a.h5")
    assert main(["import-keras", str(path), "--out", str(tmp_path / "out"), *arguments]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"channels": "BGR"}, "channels 'BGR': give 'rgb' or 'bgr'."),
        ({"malignant_index": 7}, "malignant_index 7: give 0 or 1."),
        ({"fit": "crop"}, "fit 'crop': give 'pad' or 'stretch'."),
        ({"size": "50,50"}, "size '50,50': give width and height, as (50, 50)."),
    ],
)
def test_arguments_from_python_are_checked_before_the_file(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        clearmargin.import_keras(tmp_path / "nowhere.h5", tmp_path / "out", **given)
    assert str(caught.value) == message


def test_what_is_a_bundle_already_is_not_imported(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "bundle").symlink_to(bundle)
    (tmp_path / "m.onnx").write_bytes(b"x")
    for place, message in [
        (tmp_path / "m.clearmargin", "is a bundle already; give it wherever a BUNDLE is asked for."),
        (bundle, "is a bundle already"),
        (tmp_path / "run", "is a bundle already"),
        (tmp_path / "m.onnx", "is an ONNX file. Give a Keras model"),
    ]:
        with pytest.raises(UsageError, match=message):
            clearmargin.import_keras(place, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_that_is_there_is_replaced(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is there already"):
        clearmargin.import_keras(write_small(tmp_path / "a.h5"), bundle)


def test_the_real_keras_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = read_network(write_small(tmp_path / "a.h5"))
    write_keras(tmp_path / "a.keras", old.graph, old.tensors)
    options = ["--channels", "bgr", "--offset", "0.25"]
    assert main(["import-keras", str(tmp_path / "a.keras"), "--out", str(tmp_path / "a"), *options]) == 0
    captured = capsys.readouterr()
    said = "Probabilities differ from those of the real Keras by at most "
    assert said in captured.err
    assert float(captured.err.partition(said)[2].split()[0].rstrip(".")) < 1e-6
    assert "0.5 is assumed until 'calibrate' chooses one" in captured.out


def test_where_keras_cannot_open_the_file_its_rebuild_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_small(tmp_path / "a.h5")
    network = read_network(path)
    asked: list[Path] = []

    def ask(file: Path, pixels: NDArray[np.float32]) -> Answer:
        asked.append(file)
        if file == path:
            return Answer(None, "Keras cannot open it (ValueError: old)")
        with torch.inference_mode():
            logits = read_network(file).classifier()(torch.from_numpy(pixels).permute(0, 3, 1, 2))
        return Answer(torch.sigmoid(logits).numpy())

    monkeypatch.setattr(importing, "ask_keras", ask)
    monkeypatch.setattr(importing, "read_isolated", read_network)
    monkeypatch.setattr(importing, "export_onnx", lambda *given: b"onnx")
    made = clearmargin.import_keras(path, tmp_path / "bundle", offset="0.5")
    assert [file.suffix for file in asked] == [".h5", ".keras"]
    assert made.difference is not None
    assert made.difference < 1e-6
    assert "could not be asked about the file itself (Keras cannot open it (ValueError: old))" in made.compared
    assert "of its rebuild" in made.compared
    assert network.whole
