"""`predict` with a gate: exit code, notes and rows; `--no-gate` and what it is stamped with."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.bundle.small_bundle import write_working
from tests.cli.conftest import Answer, write_patches

from clearmargin.evaluation.gate import fit_gate
from clearmargin.gate import Gate
from clearmargin.images.look import LOOK, VISIBLE, measure_look
from clearmargin.images.preprocess import Preprocessing
from clearmargin.predict.predictor import PREDICTION_KEYS, load_bundle
from clearmargin.types import NOT_GATED

SPEC = Preprocessing(width=16, height=16)
Call = Callable[..., Answer]


@pytest.fixture(scope="session")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("patches")
    write_patches(root, patients=8, per_class=6, px=16)
    return root


@pytest.fixture(scope="session")
def gated(tmp_path_factory: pytest.TempPathFactory, patches: Path) -> Path:
    folder = tmp_path_factory.mktemp("gated") / "bundle"
    write_working(folder, name="cbis_ddsm", spec=SPEC, input_gate=gate_of(patches))
    return folder


def gate_of(patches: Path, *, most: int | None = None) -> Gate:
    files = sorted(patches.rglob("*.png"))[:most]
    return fit_gate(
        measure_look(np.stack([SPEC.read(file) for file in files])),
        names=LOOK,
        visible=VISIBLE,
        sizes=np.full((len(files), 2), 16),
        grey=False,
        blank=False,
        fixed_scale=True,
        patients=np.array([file.parts[-3] for file in files]),
        features=None,
        members=1,
        chosen_on="train",
    )


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    folder = tmp_path / "strange"
    folder.mkdir()
    Image.new("RGB", (400, 300), (90, 120, 60)).save(folder / "photo.png")
    Image.new("L", (16, 16), 9).save(folder / "blank.png")
    return folder


def test_only_refused_inputs_give_exit_code_5(call: Call, gated: Path, strange: Path) -> None:
    answer = call("predict", gated, strange, "--format", "json")
    assert answer.code == 5
    assert "every input was refused (2 in all)" in answer.error
    rows = [json.loads(line) for line in answer.out.splitlines()]
    assert all(tuple(row) == PREDICTION_KEYS for row in rows)
    assert [row["decision"] for row in rows] == ["refused", "refused"]
    assert [row["probability"] for row in rows] == [None, None]
    assert [row["reason"] for row in rows] == [
        "blank: it is all of one shade",
        "size: 400×300 pixels, 25 times the largest training image (16×16)",
    ]


def test_the_others_go_on_and_python_says_the_same(call: Call, gated: Path, strange: Path, patches: Path) -> None:
    answer = call("predict", gated, patches, strange, "--format", "csv")
    assert answer.code == 0
    assert "2 of 98 images were refused, each with its reason." in answer.err
    rows = list(csv.DictReader(io.StringIO(answer.out)))
    table = load_bundle(gated).predict([row["path"] for row in rows])
    assert [row["decision"] for row in rows] == table["decision"].tolist()
    assert [row["reason"] for row in rows] == table["reason"].fillna("").tolist()


@pytest.mark.parametrize("output", ["json", "csv", "table"])
def test_without_the_gate_rows_and_standard_error_say_so(call: Call, gated: Path, strange: Path, output: str) -> None:
    answer = call("predict", gated, strange, "--no-gate", "--format", output)
    assert answer.code == 0
    assert "Note: the input gate is switched off" in answer.err
    lines = [line for line in answer.out.splitlines() if "strange" in line]
    assert len(lines) == 2
    assert all(NOT_GATED in line and "refused" not in line for line in lines)


def test_a_bundle_without_a_gate_is_said_to_have_none(call: Call, tmp_path: Path, strange: Path) -> None:
    write_working(tmp_path / "old", name="cbis_ddsm", spec=SPEC, no_gate="imported from Keras")
    answer = call("predict", tmp_path / "old", strange, "--format", "json")
    assert answer.code == 0
    said = "Note: this bundle has no input gate (imported from Keras): no image is refused for its look."
    assert answer.err.count(said) == 1
    assert [json.loads(line)["reason"] for line in answer.out.splitlines()] == [None, None]


def test_a_gate_of_few_images_says_what_it_checks(call: Call, tmp_path: Path, strange: Path, patches: Path) -> None:
    write_working(tmp_path / "few", name="cbis_ddsm", spec=SPEC, input_gate=gate_of(patches, most=12))
    answer = call("predict", tmp_path / "few", strange, "--format", "json")
    assert answer.code == 5
    assert "Note: the input gate checks only size, colour and blank images: 1 patient is too few" in answer.err


def test_the_card_says_what_is_refused_and_on_what_it_was_chosen(gated: Path, tmp_path: Path) -> None:
    card = (gated / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "## What it refuses" in card
    assert "- Refused: images more than 2 times larger than 16×16 pixels or smaller than 16×16; " in card
    assert "images without colour; blank images" in card
    assert "allows for 0.5% of the images of new patients" in card
    assert "8 patients, of whose images 0.0% are beyond it" in card
    assert "in which the network sees something else: not checked, since the network gives no features" in card
    write_working(tmp_path / "old", name="cbis_ddsm", spec=SPEC)
    old = (tmp_path / "old" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "- It refuses no image for its look. `clearmargin calibrate` gives it a gate" in old
