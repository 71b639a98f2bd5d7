"""A run folder as the workflow writes it, made of simulated predictions, and a page that can be questioned."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from clearmargin.config import dump_config
from clearmargin.context import Grid
from clearmargin.decision import Temperature
from clearmargin.evaluation.assemble import evaluate_predictions
from clearmargin.evaluation.calibration import choose_calibration
from clearmargin.evaluation.choices import OUT_OF_FOLD, Choices, network_logits
from clearmargin.evaluation.conformal import fit_abstention
from clearmargin.evaluation.context import find_cells
from clearmargin.evaluation.folds import across_folds, spread
from clearmargin.evaluation.pooling import choose_level
from clearmargin.evaluation.predictions import write_predictions
from clearmargin.report.write import write_artefacts, write_report
from clearmargin.settings import EvaluateSettings, RunConfig, TrainSettings
from clearmargin.types import FIELD_COLUMN, LABEL_NAMES, MANIFEST_COLUMNS, SPLITS, OperatingPoint

THRESHOLD = 0.31
TEMPERATURE = 1.25
POINT = OperatingPoint("balanced", "the highest balanced accuracy on the validation split", THRESHOLD)
_PATIENTS = {"train": 12, "validation": 12, "test": 10}


def simulate(*, images_per_patient: int = 60, seed: int = 0, whole: bool = False) -> pd.DataFrame:
    """Predictions as in predictions.csv: each patient with an offset of its own, and of both classes unless `whole`."""
    rng = np.random.default_rng(seed)
    frames = []
    for split, n_patients in _PATIENTS.items():
        for number in range(n_patients):
            patient = f"{split[:2].upper()}-{number:02d}"
            labels = (rng.random(images_per_patient) < rng.uniform(0.15, 0.6)).astype(int)
            labels[:2] = 0, 1
            if whole:
                labels[:] = number % 2
            logits = rng.normal(-1.6 + 2.8 * labels + rng.normal(0, 0.7), 1.4)
            paths = [f"{patient}/{label}/{patient}_{index:03d}.png" for index, label in enumerate(labels)]
            frames.append(
                pd.DataFrame({"path": paths, "patient_id": patient, "split": split, "label": labels, "logit": logits})
            )
    table = pd.concat(frames, ignore_index=True)
    table["probability"] = 1 / (1 + np.exp(-table["logit"] / TEMPERATURE))
    table["decision"] = np.where(table["probability"] >= THRESHOLD, LABEL_NAMES[1], LABEL_NAMES[0])
    return table.assign(slide_id=None, x=None, y=None)


def with_slides(table: pd.DataFrame) -> pd.DataFrame:
    """The table with two slides a patient."""
    half = (table.groupby("patient_id").cumcount() % 2).astype(str)
    return table.assign(slide_id=table["patient_id"] + "-S" + half)


def describe(table: pd.DataFrame) -> pd.DataFrame:
    """A manifest of the table's images, of two sites."""
    site = np.where(table.groupby("patient_id").cumcount() % 3 == 0, "north <b>", "south|1")
    columns = dict.fromkeys(MANIFEST_COLUMNS, None) | {"path": table["path"], "site": site, "width": 50, "height": 50}
    return pd.DataFrame(columns)


GRID = Grid(step=25, scale=0.75, networks=2)
THRESHOLD_ALONE = 0.43


def with_places(table: pd.DataFrame) -> pd.DataFrame:
    """The table with each patient's patches on a lattice of a slide, and the logit of a network that sees the field."""
    number = table.groupby("patient_id").cumcount()
    noise = np.random.default_rng(7).normal(0, 1, len(table))
    places = {"slide_id": table["patient_id"], "x": 25 * (number % 8), "y": 25 * (number // 8)}
    return table.assign(**places, **{FIELD_COLUMN: table["logit"] + noise})


def choices_in_context(table: pd.DataFrame) -> Choices:
    """What would decide in context, out of fold, and a patch by itself at a threshold of its own."""
    splits = ("train", "validation")
    alone = choices_of(table, splits=splits, threshold=THRESHOLD_ALONE)
    cells = find_cells(table, GRID.step)
    assert cells is not None
    logits = GRID.apply(network_logits(table, 2), cells)
    among = table.assign(logit=logits, probability=1 / (1 + np.exp(-logits / TEMPERATURE)))
    return replace(choices_of(among, splits=splits), context=GRID, alone=alone).on(OUT_OF_FOLD)


def choices_of(
    table: pd.DataFrame,
    *,
    coverage: float = 0.8,
    splits: Sequence[str] = ("validation",),
    threshold: float = THRESHOLD,
) -> Choices:
    """What would decide: the fixed temperature and threshold, the rest chosen on these splits of the table."""
    rows = table[table["split"].isin(splits)]
    labels, logits = rows["label"].to_numpy(dtype=np.int64), rows["logit"].to_numpy()
    patients = rows["patient_id"].to_numpy(dtype=object) if rows["patient_id"].notna().all() else None
    calibration = Temperature(temperature=TEMPERATURE)
    how = choose_calibration(labels, logits, patients, method="auto", seed=0) if len(set(labels)) == 2 else None
    if len(rows) == 0:
        return Choices(calibration, POINT, "there is no validation split")
    abstention = fit_abstention(
        labels, logits, patients, coverage=coverage, calibration=calibration, threshold=threshold
    )
    levels = {
        level: choose_level(
            labels,
            rows["probability"].to_numpy(),
            rows[f"{level}_id"].to_numpy(dtype=object),
            patients,
            level=level,
            image_threshold=threshold,
            seed=0,
        )
        for level in ("slide", "patient")
        if rows[f"{level}_id"].notna().all() and len(set(labels)) == 2
    }
    return Choices(calibration, replace(POINT, threshold=threshold), abstention, levels, how)


_EVALUATED: dict[tuple[object, ...], dict[str, Any]] = {}
"""What was evaluated already, since many tests change only what is around it."""


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
    manifest: pd.DataFrame | None = None
    prevalence: float | None = None
    coverage: float = 0.8
    crossfit: int = 0
    """So many networks were cross-fitted, and decide in the context of slides; the table then has places."""
    without: Sequence[str] = ()

    def choose(self, table: pd.DataFrame) -> Choices:
        return choices_in_context(table) if self.crossfit else choices_of(table, coverage=self.coverage)

    def metrics(self, table: pd.DataFrame, choices: Choices) -> dict[str, Any]:
        splits = [split for split in SPLITS if (table["split"] == split).any()]
        patients = {split: table.loc[table["split"] == split, "patient_id"].nunique() for split in splits}
        protocol = {
            "split": self.protocol,
            "split_sha256": "5" * 64,
            "seed": 11,
            "patients": patients if self.with_patients else dict.fromkeys(splits),
            "images": {split: int((table["split"] == split).sum()) for split in splits},
            **({"crossfit": self.crossfit} if self.crossfit else {}),
        }
        described = "" if self.manifest is None else self.manifest.to_csv()
        key = (table.to_csv(), json.dumps(protocol), self.prevalence, self.coverage, described)
        if key not in _EVALUATED:
            _EVALUATED[key] = evaluate_predictions(
                table,
                choices,
                protocol=protocol,
                settings=EvaluateSettings(resamples=100, prevalence=self.prevalence),
                seed=0,
                columns=self.manifest,
            )
        return copy.deepcopy(_EVALUATED[key])

    def write(self) -> Path:
        """The folder, without its report."""
        self.folder.mkdir(parents=True, exist_ok=True)
        table = self.table if self.with_patients else self.table.assign(patient_id=None)
        choices = self.choose(table)
        if self.crossfit:
            table = choices.apply(table)
        table = table.assign(decision=choices.decide(table["probability"].to_numpy()))
        write_predictions(table, self.folder / "predictions.csv")
        texts = {
            "split.csv": table[["path", "patient_id", "label", "split"]].to_csv(index=False),
            "history.csv": _HISTORY,
            "config.toml": dump_config(self.config),
            "metrics.json": json.dumps(_merge(self.metrics(table, choices), self.changes)),
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
        self._separate(len(self.elements) - 1)
        if tag not in self._VOID:
            self._open.append(len(self.elements) - 1)

    def _separate(self, index: int) -> None:
        """Two elements do not run together, unless one is a number in the middle of a sentence."""
        tag, attributes, _ = self.elements[index]
        if tag not in ("span", "strong") or "data-figure" not in attributes:
            self.handle_data(" ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}, []))

    def handle_endtag(self, tag: str) -> None:
        while self._open:
            index = self._open.pop()
            if self.elements[index][0] == tag:
                self._separate(index)
                return

    def handle_data(self, data: str) -> None:
        for index in self._open:
            self.elements[index][2].append(data)

    def find(self, selector: str) -> list[tuple[str, dict[str, str], str]]:
        tag, dot, name = selector.partition(".")
        if selector.startswith("#"):
            return [(t, a, "".join(x)) for t, a, x in self.elements if a.get("id") == selector[1:]]
        return [
            (t, a, "".join(x))
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
                tables[-1][-1].append(" ".join("".join(texts).split()))
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
    write_artefacts(folder, load_image=_patch, figures=folder / "figures")
    return folder


def study_blocks(table: pd.DataFrame) -> dict[str, Any]:
    """The blocks of a cross-validation and of several seeds, as if each test patient were a fold."""
    rows = table[table["split"] == "test"]
    folds, values = [], []
    for number, (_, own) in enumerate(rows.groupby("patient_id")):
        figures = {
            "auroc": float(0.8 + 0.01 * number),
            "brier": float((own["probability"] - own["label"]).pow(2).mean()),
        }
        values.append(figures)
        folds.append({"repeat": 0, "fold": number, "n_images": len(own), "n_patients": 1, "figures": figures})
    names = ("auroc", "brier")
    return {
        "folds": folds,
        "across_folds": {name: across_folds([each[name] for each in values], test_share=0.1) for name in names},
        "seeds": {"seeds": [11, 12, 13], "figures": {name: spread([0.8, 0.82, 0.81]) for name in names}},
    }


ELSEWHERE: dict[str, Any] = {
    "drift": {
        "score": {"not_applicable": "fewer than two held-out patients"},
        "inputs": [
            {
                "name": "brightness",
                "training": {"median": 0.61, "q1": 0.5, "q3": 0.7},
                "here": {"median": 0.42, "q1": 0.33, "q3": 0.55},
                "ks": 0.41,
                "shift": -1.3,
                "p": 0.001,
                "verdict": "shifted",
            }
        ],
        "text": "The images differ from those of training by more than patients do: brightness (-1.3).",
    },
    "recalibration": {
        "offered": True,
        "text": "Recalibration would mend the probabilities here.",
        "command": "clearmargin recalibrate bundle predictions.csv --out mended",
        "before": {"brier": 0.2, "slope": 0.6, "intercept": -0.4},
        "after_cv": {"brier": 0.17, "slope": 0.97, "intercept": 0.02},
    },
}


@pytest.fixture(scope="session")
def full_run(build_run: Callable[..., RunBuilder]) -> Path:
    """A run with every block that metrics.json may have: whole patients, slides, groups, folds, seeds, drift."""
    table = with_slides(simulate(whole=True, images_per_patient=24))
    manifest = describe(table)
    changes = study_blocks(table) | ELSEWHERE
    folder = build_run("full", table=table, manifest=manifest, prevalence=0.01, changes=changes).write()
    write_artefacts(folder, load_image=_patch, figures=folder / "figures")
    return folder


@pytest.fixture(scope="session")
def context_run(build_run: Callable[..., RunBuilder]) -> Path:
    """A run of cross-fitted networks that decide in the context of slides."""
    build = build_run("in-context", table=with_places(simulate(images_per_patient=24)), crossfit=3)
    build.environment["model"] |= {"ensemble": 3, "field": 5, "thumbnail": 10}
    folder = build.write()
    write_artefacts(folder, load_image=_patch, figures=folder / "figures")
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
