"""What the pictures of docs/concepts show, computed on phantom patients by the package's own functions.

The images are those of `clearmargin demo`: 40 drawn patients of 90 patches. The models are a student's, so that all of
it takes seconds: each sees a patch as a few plain numbers. Nothing is drawn here; see `draw.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from clearmargin.context import Grid
from clearmargin.data.phantom import PhantomSettings, PhantomSlide, draw_slide
from clearmargin.decision import sigmoid
from clearmargin.evaluation.assemble import evaluate_predictions
from clearmargin.evaluation.choices import Choices, choose
from clearmargin.evaluation.context import Surroundings
from clearmargin.evaluation.metrics import ece
from clearmargin.evaluation.optimism import optimism
from clearmargin.evaluation.prevalence import ppv_npv_at
from clearmargin.evaluation.reliability import reliability_bins
from clearmargin.images.look import measure_look
from clearmargin.images.preprocess import Preprocessing
from clearmargin.settings import EvaluateSettings

Floats = NDArray[np.float64]
Numbers = dict[str, Any]

TRAINED, VALIDATED = 16, 12
"""Patients, in the order in which they are drawn; the other 12 are test."""
FOLDS = 5
_SETTINGS = EvaluateSettings(resamples=400)
_FIGURES = ("auroc", "balanced_accuracy", "sensitivity", "specificity", "ppv", "npv", "brier", "ece")
_CELLS = 5
_GRID = (10, 16)
"""Patients and patches of each that the picture of a split shows."""


@dataclass(frozen=True)
class Cohort:
    """Square patches (N, px, px, 3), each with its label, the number of its patient and its corner's pixel (x, y)."""

    patches: NDArray[np.uint8]
    labels: NDArray[np.int64]
    patients: NDArray[np.int64]
    corners: NDArray[np.int64]
    px: int

    @property
    def split(self) -> NDArray[np.str_]:
        """(N,) train, validation or test."""
        late = np.where(self.patients < TRAINED + VALIDATED, "validation", "test")
        return np.where(self.patients < TRAINED, "train", late)

    def table(self, **columns: object) -> pd.DataFrame:
        """One row a patch, as in predictions.csv, with these columns besides."""
        names = [f"P{number + 1:03d}" for number in self.patients]
        x, y = self.corners.T
        paths = [f"{name}_x{left}_y{top}.png" for name, left, top in zip(names, x, y, strict=True)]
        ids = {"path": paths, "patient_id": names, "slide_id": names, "x": x, "y": y}
        return pd.DataFrame({**ids, "label": self.labels, **columns})


def draw_slides() -> list[PhantomSlide]:
    """The slides of the patients of the demo."""
    return [draw_slide(number) for number in range(PhantomSettings().patients)]


def cut(slides: Sequence[PhantomSlide], px: int) -> Cohort:
    """The patches of tissue; the slides' own, or where `px` is smaller, each of these cut further.

    Pieces at the edge of a slide are fitted as everywhere; smaller patches have the class of most of their pixels.
    """
    spec, parts = Preprocessing(width=px, height=px), PhantomSettings().patch_px // px
    patches, labels, patients, corners = [], [], [], []
    for number, slide in enumerate(slides):
        for row, column in np.argwhere(slide.tissue.repeat(parts, axis=0).repeat(parts, axis=1)).tolist():
            place = np.s_[row * px : (row + 1) * px, column * px : (column + 1) * px]
            if slide.image[place].size == 0:
                continue
            patch = np.ascontiguousarray(slide.image[place])
            patches.append(patch if patch.shape[:2] == (px, px) else spec.apply(patch))
            labels.append(int(slide.lesion[row, column] if parts == 1 else slide.lesion_px[place].mean() > 0.5))
            patients.append(number)
            corners.append((column * px, row * px))
    return Cohort(np.stack(patches), np.array(labels), np.array(patients), np.array(corners), px)


def study(slides: Sequence[PhantomSlide]) -> Numbers:
    """Everything that is drawn, by the name of the picture."""
    cohort = cut(slides, PhantomSettings().patch_px)
    predictions, choices, metrics = decide(cohort)
    return {
        "leakage": leakage(cohort),
        "operating_point": operating_point(predictions, choices, metrics),
        "calibration": calibration(cohort),
        "abstention": abstention(predictions, choices, metrics),
        "context": context(slides),
    }


def leakage(cohort: Cohort) -> Numbers:
    """AUROC of two models out of fold, once in folds of random patches and once in folds of patients."""
    looks, rng = measure_look(cohort.patches), np.random.default_rng(0)
    n, n_patients = len(cohort.labels), int(cohort.patients.max()) + 1
    by_patch = rng.permutation(n) % FOLDS
    by_patient = (rng.permutation(n_patients) % FOLDS)[cohort.patients]
    found: Numbers = {"n_images": n, "n_patients": n_patients, "folds": FOLDS}
    for name, build in _MODELS.items():
        tables = [_out_of_fold(cohort, looks, folds, build) for folds in (by_patch, by_patient)]
        result = optimism(*tables, resamples=200, seed=0)
        found[name] = {part: _shown(result[part]["auroc"]) for part in ("random", "patient", "gap")}
    tested = by_patient[cohort.patients == 2][0]
    shown = range(_GRID[0])
    found["grid"] = {
        "random": [
            (by_patch[cohort.patients == number][: _GRID[1]] == tested).astype(int).tolist() for number in shown
        ],
        "patient": [int(by_patient[cohort.patients == number][0] == tested) for number in shown],
    }
    return found


_MODELS: dict[str, Callable[[], Any]] = {
    "nearest neighbours": lambda: KNeighborsClassifier(5),
    "logistic regression": lambda: LogisticRegression(max_iter=1000, tol=1e-8),
}


def _out_of_fold(cohort: Cohort, looks: Floats, folds: NDArray[np.int64], build: Callable[[], Any]) -> pd.DataFrame:
    probabilities = np.empty(len(folds))
    for fold in range(FOLDS):
        inside = folds != fold
        model = make_pipeline(StandardScaler(), build()).fit(looks[inside], cohort.labels[inside])
        probabilities[~inside] = model.predict_proba(looks[~inside])[:, 1]
    decisions = np.where(probabilities >= 0.5, "malignant", "benign")
    return cohort.table(fold=folds, repeat=0, probability=probabilities, decision=decisions)


def decide(cohort: Cohort) -> tuple[pd.DataFrame, Choices, Numbers]:
    """Predictions of a logistic regression on the looks of patches, what was chosen on validation, and metrics.json."""
    looks, training = measure_look(cohort.patches), cohort.split == "train"
    model = make_pipeline(StandardScaler(), _MODELS["logistic regression"]())
    model.fit(looks[training], cohort.labels[training])
    table = cohort.table(split=cohort.split, logit=model.decision_function(looks))
    validation = table[table["split"] == "validation"]
    choices = choose(validation, _SETTINGS, seed=0, surroundings=Surroundings(cohort.px))
    decided = choices.apply(table)
    protocol = {"split": "patient"}
    metrics = evaluate_predictions(decided, choices, protocol=protocol, settings=_SETTINGS, seed=0)
    return decided, choices, metrics


def operating_point(predictions: pd.DataFrame, choices: Choices, metrics: Numbers) -> Numbers:
    """The probabilities of test by class, what decides, its figures, and PPV and NPV by prevalence."""
    test = predictions[predictions["split"] == "test"]
    edges = np.linspace(0, 1, 26)
    shares = {}
    for label, name in enumerate(("benign", "malignant")):
        values = test.loc[test["label"] == label, "probability"]
        shares[name] = _rounded(np.histogram(values, edges)[0] / len(values))
    block = metrics["test"]["image"]
    found, spared = (block[name]["value"] for name in ("sensitivity", "specificity"))
    prevalences = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5]
    values = [[float(each) for each in ppv_npv_at(found, spared, share)] for share in prevalences]
    low, high = choices.abstention.between  # type: ignore[union-attr]
    return {
        "edges": _rounded(edges),
        "shares": shares,
        "threshold": _rounded(choices.point.threshold),
        "cannot_tell": _rounded([low, high]),
        "at_threshold": {name: _shown(block[name]) for name in _FIGURES},
        "at_0.5": {name: _shown(metrics["test"]["image_at_0.5"][name]) for name in _FIGURES[1:6]},
        "prevalence": _rounded(test["label"].mean()),
        "prevalences": prevalences,
        "ppv": _rounded([ppv for ppv, _ in values]),
        "npv": _rounded([npv for _, npv in values]),
    }


def calibration(cohort: Cohort) -> Numbers:
    """Reliability of naive Bayes on 75 colours of a patch, on test patients, before and after calibration."""
    n = len(cohort.labels)
    colours = cohort.patches.reshape(n, _CELLS, 10, _CELLS, 10, 3).mean(axis=(2, 4)).reshape(n, -1) / 255
    training, test = cohort.split == "train", cohort.split == "test"
    model = GaussianNB().fit(colours[training], cohort.labels[training])
    joint = model.predict_joint_log_proba(colours)
    table = cohort.table(split=cohort.split, logit=joint[:, 1] - joint[:, 0])
    choices = choose(table[table["split"] == "validation"], _SETTINGS, seed=0)
    labels, names = cohort.labels[test], table.loc[test, "patient_id"].to_numpy()
    logits = table.loc[test, "logit"].to_numpy()
    found: Numbers = {"method": choices.calibration.method, "auroc": _rounded(roc_auc_score(labels, logits))}
    for part, values in (("before", sigmoid(logits)), ("after", choices.probabilities(logits))):
        bins = reliability_bins(labels, values, groups=names, seed=0).rows()
        found[part] = {
            "bins": [{key: _rounded(value) for key, value in each.items()} for each in bins],
            "brier": _rounded(np.mean((values - labels) ** 2)),
            "ece": _rounded(ece(labels, values)),
            "certain": _rounded(np.mean((values < 0.01) | (values > 0.99))),
            "wrong_of_certain": _rounded(np.mean(labels[values > 0.99] == 0) if (values > 0.99).any() else None),
        }
    return found


def abstention(predictions: pd.DataFrame, choices: Choices, metrics: Numbers) -> Numbers:
    """The risk-coverage curve, where the model stands on it, and how much of each test patient is covered."""
    test = predictions[predictions["split"] == "test"]
    wrong = (test["decision"] != "abstain") & (test["decision"] != test["label"].map({0: "benign", 1: "malignant"}))
    by_patient = test.assign(covered=~wrong, withheld=test["decision"] == "abstain").groupby("patient_id")
    curve, block = metrics["test"]["risk_coverage"], metrics["test"]["abstention"]
    names = ("covered", "covered_malignant", "covered_benign", "deferred", "error_decided", "error_all")
    return {
        "curve": {name: _rounded(curve[name]) for name in ("decided", "error", "ci")},
        "figures": {name: _shown(block[name]) for name in names},
        "covered_by_patient": _rounded(by_patient["covered"].mean().tolist()),
        "withheld_by_patient": _rounded(by_patient["withheld"].mean().tolist()),
        "promised": choices.abstention.coverage,  # type: ignore[union-attr]
        "validation_patients": choices.abstention.n_units,  # type: ignore[union-attr]
    }


def context(slides: Sequence[PhantomSlide]) -> Numbers:
    """Figures alone and in context of patches of half the side, and the maps of the test slide of median gain."""
    cohort = cut(slides, PhantomSettings().patch_px // 2)
    predictions, choices, metrics = decide(cohort)
    assert isinstance(choices.context, Grid)
    assert choices.alone is not None
    called = {
        "alone": predictions["probability_alone"] >= choices.alone.point.threshold,
        "context": predictions["probability"] >= choices.point.threshold,
    }
    predictions = predictions.assign(**{f"wrong_{way}": calls != predictions["label"] for way, calls in called.items()})
    gains = {}
    for name, rows in predictions[predictions["split"] == "test"].groupby("patient_id"):
        alone, inside = (roc_auc_score(rows["label"], rows[column]) for column in ("logit_alone", "logit"))
        gains[str(name)] = round(float(inside - alone), 4)
    chosen = sorted(gains, key=lambda name: (gains[name], name))[len(gains) // 2]
    rows = predictions[predictions["patient_id"] == chosen]
    height, width = slides[int(chosen.removeprefix("P")) - 1].image.shape[:2]
    found = metrics["test"]
    figures = {
        way: {name: _shown(found[block][name]) for name in ("auroc", "balanced_accuracy", "brier")}
        for way, block in (("alone", "image_alone"), ("context", "image"))
    }
    return {
        **figures,
        "px": cohort.px,
        "n_images": int((cohort.split == "test").sum()),
        "scale": choices.context.scale,
        "gains": sorted(gains.values()),
        "slide": chosen,
        "size": [width / cohort.px, height / cohort.px],
        "columns": (rows["x"] // cohort.px).tolist(),
        "rows": (rows["y"] // cohort.px).tolist(),
        "labels": rows["label"].tolist(),
        "probability_alone": _rounded(rows["probability_alone"].tolist()),
        "probability_context": _rounded(rows["probability"].tolist()),
        "wrong": {way: int(rows[f"wrong_{way}"].sum()) for way in called},
    }


def _shown(figure: Numbers) -> Numbers:
    return {name: _rounded(figure[name]) for name in ("value", "ci")}


def _rounded(value: Any) -> Any:
    """To four digits, so that the file of numbers does not change with the last bits."""
    if value is None:
        return None
    if isinstance(value, list | tuple | np.ndarray):
        return [_rounded(each) for each in value]
    return int(value) if isinstance(value, int | np.integer) else round(float(value), 4)
