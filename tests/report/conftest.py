"""A run folder as the workflow writes it, made of simulated predictions, and a page that can be questioned."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from clearmargin.config import dump_config
from clearmargin.evaluation.assemble import evaluate_predictions
from clearmargin.evaluation.predictions import write_predictions
from clearmargin.report.html import write_report
from clearmargin.settings import RunConfig, TrainSettings
from clearmargin.types import LABEL_NAMES, SPLITS, OperatingPoint

THRESHOLD = 0.31
TEMPERATURE = 1.25
_PATIENTS = {"train": 12, "validation": 4, "test": 10}


def simulate(*, images_per_patient: int = 60, seed: int = 0) -> pd.DataFrame:
    """Predictions as in predictions.csv: patients of both classes, each with an offset of its own."""
    rng = np.random.default_rng(seed)
    frames = []
    for split, n_patients in _PATIENTS.items():
        for number in range(n_patients):
            patient = f"{split[:2].upper()}-{number:02d}"
            labels = (rng.random(images_per_patient) < rng.uniform(0.15, 0.6)).astype(int)
            labels[:2] = 0, 1
            logits = rng.normal(-1.6 + 2.8 * labels + rng.normal(0, 0.7), 1.4)
            paths = [f"{patient}/{label}/{patient}_{index:03d}.png" for index, label in enumerate(labels)]
            frames.append(
                pd.DataFrame({"path": paths, "patient_id": patient, "split": split, "label": labels, "logit": logits})
            )
    table = pd.concat(frames, ignore_index=True)
    table["probability"] = 1 / (1 + np.exp(-table["logit"] / TEMPERATURE))
    table["decision"] = np.where(table["probability"] >= THRESHOLD, LABEL_NAMES[1], LABEL_NAMES[0])
    return table.assign(slide_id=None, x=None, y=None)


@dataclass
class RunBuilder:
    """Writes a run folder; change `metrics`, `audit`, `environment`, `table` or `without` before `write`."""

    folder: Path
    protocol: str = "patient"
    table: pd.DataFrame = field(default_factory=simulate)
    with_patients: bool = True
    audit: dict[str, Any] = field(default_factory=lambda: json.loads(_AUDIT))
    environment: dict[str, Any] = field(default_factory=lambda: json.loads(_ENVIRONMENT))
    config: RunConfig = field(default_factory=lambda: RunConfig(seed=11, train=TrainSettings(epochs=8, patience=3)))
    changes: Mapping[str, Any] = field(default_factory=dict)
    without: Sequence[str] = ()

    def metrics(self, table: pd.DataFrame) -> dict[str, Any]:
        splits = [split for split in SPLITS if (table["split"] == split).any()]
        patients = {split: table.loc[table["split"] == split, "patient_id"].nunique() for split in splits}
        return evaluate_predictions(
            table,
            OperatingPoint("balanced", "the highest balanced accuracy on the validation split", THRESHOLD),
            protocol={
                "split": self.protocol,
                "split_sha256": "5" * 64,
                "seed": 11,
                "patients": patients if self.with_patients else dict.fromkeys(splits),
                "images": {split: int((table["split"] == split).sum()) for split in splits},
            },
            temperature=TEMPERATURE,
            resamples=100,
            seed=0,
        )

    def write(self) -> Path:
        """The folder, without its report."""
        self.folder.mkdir(parents=True, exist_ok=True)
        table = self.table if self.with_patients else self.table.assign(patient_id=None)
        write_predictions(table, self.folder / "predictions.csv")
        texts = {
            "split.csv": table[["path", "patient_id", "label", "split"]].to_csv(index=False),
            "history.csv": _HISTORY,
            "config.toml": dump_config(self.config),
            "metrics.json": json.dumps(_merge(self.metrics(table), self.changes)),
            "audit.json": json.dumps(self.audit),
            "environment.json": json.dumps(self.environment),
        }
        for name, text in texts.items():
            if name not in self.without:
                (self.folder / name).write_text(text, encoding="utf-8")
        return self.folder


def _merge(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The values with changes at dotted keys."""
    for key, change in changes.items():
        *sections, leaf = key.split("/")
        place = values
        for section in sections:
            place = place[section]
        place[leaf] = change
    return values


class Page(HTMLParser):
    """A page as a list of elements; `texts(selector)` are their texts, with `tag`, `.class`, `#id` or `tag.class`."""

    _VOID = frozenset({"meta", "link", "img", "br", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source = text
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self._open: list[int] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}, []))
        if tag not in self._VOID:
            self._open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}, []))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self.elements[self._open.pop()][0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        for index in self._open:
            self.elements[index][2].append(data)

    def find(self, selector: str) -> list[tuple[str, dict[str, str], str]]:
        tag, dot, name = selector.partition(".")
        if selector.startswith("#"):
            return [(t, a, " ".join(x)) for t, a, x in self.elements if a.get("id") == selector[1:]]
        return [
            (t, a, " ".join(x))
            for t, a, x in self.elements
            if (not tag or t == tag) and (not dot or name in a.get("class", "").split())
        ]

    def texts(self, selector: str) -> list[str]:
        return [" ".join(text.split()) for _, _, text in self.find(selector)]

    def tables(self) -> list[list[list[str]]]:
        """The texts of the cells of the rows of every table."""
        tables: list[list[list[str]]] = []
        for tag, _, texts in self.elements:
            if tag == "table":
                tables.append([])
            elif tag == "tr":
                tables[-1].append([])
            elif tag in ("th", "td"):
                tables[-1][-1].append(" ".join(" ".join(texts).split()))
        return tables


def _patch(path: str) -> NDArray[np.uint8]:
    seed = int.from_bytes(path.encode()[-8:], "little")
    return np.random.default_rng(seed).integers(0, 256, (50, 50, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def load_image() -> Callable[[str], NDArray[np.uint8]]:
    """A picture of 50 × 50 pixels that depends on the path only."""
    return _patch


@pytest.fixture
def predictions() -> pd.DataFrame:
    """Predictions of 26 patients, 10 of them in the test split, with 60 images each."""
    return simulate()


@pytest.fixture(scope="session")
def build_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunBuilder]:
    """Makes a RunBuilder with a folder of its own."""

    def build(name: str = "run", **options: Any) -> RunBuilder:
        return RunBuilder(tmp_path_factory.mktemp("runs") / name, **options)

    return build


@pytest.fixture(scope="session")
def run(build_run: Callable[..., RunBuilder]) -> Path:
    """A complete run split by patient, with its report; tests only read it."""
    folder = build_run("by-patient").write()
    write_report(folder, load_image=_patch)
    return folder


@pytest.fixture(scope="session")
def page(run: Path) -> Page:
    return Page((run / "report.html").read_text(encoding="utf-8"))


@pytest.fixture
def metrics(run: Path) -> dict[str, Any]:
    """metrics.json of `run`."""
    values: dict[str, Any] = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    return values


@pytest.fixture
def report(build_run: Callable[..., RunBuilder]) -> Callable[..., Page]:
    """Builds a run with options, writes its report and returns the page."""

    def write(*, load_image: Callable[[str], NDArray[np.uint8]] = _patch, **options: Any) -> Page:
        target = write_report(build_run(**options).write(), load_image=load_image)
        return Page(target.read_text(encoding="utf-8"))

    return write


_AUDIT = """{
  "schema": 1,
  "data": {"root": "data/idc", "source": "idc"},
  "flow": [{"step": "files found", "count": 1570}, {"step": "images that open", "count": 1563},
           {"step": "images used", "count": 1560}],
  "counts": {"images": 1560, "patients": 26, "slides": null, "benign": 960, "malignant": 600},
  "findings": [
    {"kind": "small", "severity": "note", "message": "3 images are smaller than the rest.", "fix": "Nothing to do.",
     "count": 3, "paths": ["a/1.png", "a/2.png", "a/3.png"]},
    {"kind": "truncated", "severity": "warning", "message": "7 files are cut short.", "fix": "Copy them again.",
     "count": 7, "paths": ["b/1.png"]}
  ],
  "quarantine": [{"path": "b/1.png", "kind": "truncated", "reason": "ends before its last row"}],
  "blocked": false
}"""

_ENVIRONMENT = """{
  "clearmargin": "0.1.0", "command": "clearmargin train data/idc --out runs/idc --seed 11",
  "started": "2025-03-04T05:06:07+00:00", "python": "3.11.9", "platform": "Linux-6.1", "processor": "x86_64",
  "cores": 8, "threads": 4, "device": "cpu", "precision": "32-true",
  "libraries": {"torch": "2.13.0", "numpy": "2.4.6"},
  "seconds": {"audit": 1.5, "pack": 2.5, "train": 75.2, "evaluate": 3.1},
  "data_sha256": "1111111111111111111111111111111111111111111111111111111111111111",
  "split_sha256": "5555555555555555555555555555555555555555555555555555555555555555",
  "model": {"name": "residual", "parameters": 123456},
  "preprocessing": {"width": 50, "height": 50, "channels": 3, "fit": "pad", "padding": "mirror",
                    "interpolation": "area", "mean": 0.5, "std": 0.25}
}"""

_HISTORY = """epoch,train_loss,train_accuracy,validation_loss,validation_accuracy,validation_auroc,seconds
1,0.69,0.60,0.66,0.62,0.70,9.1
2,0.55,0.72,0.52,0.74,0.81,9.0
3,0.47,0.79,0.49,0.78,0.84,9.2
4,0.40,0.83,0.53,0.77,0.83,9.0
"""
