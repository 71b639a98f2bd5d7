"""Every number of a report, computed again from predictions.csv by scikit-learn, SciPy and NumPy alone.

Nothing here calls our evaluation. `Recomputed.value(key)` is the number that stands under a key of metrics.json;
a key that it does not know raises `Unknown`, unless it is in GIVEN.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, special, stats
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression

GIVEN = (
    r"calibration\.candidates\.\d+\.brier",  # cross-validated refits on validation
    r"folds\.\d+\..*",  # predictions of other networks, which are not in the table
    r"drift\..*",  # pixels of other images
    r"recalibration\..*",  # other data
    r"(context\.alone\.)?abstention\.coverage",  # a setting
    r"(context\.alone\.)?operating_point\.threshold",  # chosen; that the decisions agree with it is tested
    r"context\.(scale|step)",  # chosen, and a fact of the data; that they made the logits is tested
    r"protocol\.crossfit",  # a setting
    r"levels\.\w+\.(threshold|pooling\.k)",  # chosen on validation
    r".*at_prevalence\.prevalence",  # a setting
)
"""Keys whose numbers come from the run's settings or from predictions that the table does not hold."""


class Unknown(KeyError):
    """No independent computation covers this number."""


class Recomputed:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.table = pd.read_csv(folder / "predictions.csv", dtype={"patient_id": str, "slide_id": str})
        self.split_table = pd.read_csv(folder / "split.csv", dtype={"patient_id": str})
        self.stored: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        self.threshold = self.stored["operating_point"]["threshold"]
        self.headline = [split for split in ("train", "validation", "test") if split in self.stored][-1]
        self.sites: pd.Series | None = None

    def rows(self, split: str) -> pd.DataFrame:
        return self.table[self.table["split"] == split]

    def lookup(self, key: str) -> Any:
        """What metrics.json holds under a key; names with a dot in them are found too."""

        def walk(place: Any, parts: list[str]) -> Any:
            if not parts:
                return place
            if isinstance(place, list):
                return walk(place[int(parts[0])], parts[1:])
            for end in range(len(parts), 0, -1):
                name = ".".join(parts[:end])
                if isinstance(place, dict) and name in place:
                    return walk(place[name], parts[end:])
            raise KeyError(key)

        return walk(self.stored, key.split("."))

    def value(self, key: str) -> Any:
        """The number, a pair of numbers for an interval, or a text for a sentence that the run recorded."""
        for pattern, compute in RULES:
            if found := re.fullmatch(pattern, key):
                return compute(self, **found.groupdict())
        if key.endswith(".quarters"):
            entry = self.lookup(key.removesuffix(".quarters"))
            return entry["q1"], entry["q3"]
        if any(re.fullmatch(pattern, key) for pattern in GIVEN):
            return self.lookup(key)
        raise Unknown(key)

    def statistic(self, key: str) -> tuple[pd.DataFrame, Callable[[pd.DataFrame], float]]:
        """The rows a figure rests on, and the figure as a function of them, for a bootstrap."""
        split, _, rest = key.partition(".")
        rows = self.rows(split)
        if found := re.fullmatch(r"(image|image_alone|image_at_0\.5|slide|patient)\.(\w+)", rest):
            level, name = found.groups()
            return rows, lambda some: figure(name, *self.cases(some, level))
        if found := re.fullmatch(r"abstention\.(\w+)", rest):
            return rows, lambda some: self.abstained(some, found[1])
        if rest == "risk_coverage.area":
            return rows, self.risk
        if found := re.fullmatch(r"at_prevalence\.(\w+)", rest):
            return rows, lambda some: self.at_prevalence(some, found[1])
        if found := re.fullmatch(r"subgroups\.(\w+)\.groups\.(\d+)\.(\w+)", rest):
            group = self.group(found[1], int(found[2]))
            return group, lambda some: figure(found[3], *self.cases(some, "image"))
        if found := re.fullmatch(r"calibration\.reliability\.(\d+)", rest):
            low, high = self.edges(f"{split}.calibration.reliability.{found[1]}")
            return rows, lambda some: float(some.loc[in_bin(some, low, high), "label"].mean())
        if found := re.fullmatch(r"decision_curve\.(\d+)", rest):
            return rows, lambda some: net_benefit(some["label"], some["probability"], (int(found[1]) + 1) / 100)
        raise Unknown(key)

    def cases(self, rows: pd.DataFrame, level: str) -> tuple[Any, Any, Any]:
        """(labels, probabilities, calls) of images, or of slides or patients pooled as the model says."""
        if level == "image_alone":
            threshold = self.stored["context"]["alone"]["operating_point"]["threshold"]
            alone = rows["probability_alone"].to_numpy()
            return rows["label"].to_numpy(), alone, alone >= threshold
        if level in ("image", "image_at_0.5"):
            threshold = 0.5 if level.endswith("0.5") else self.threshold
            return rows["label"].to_numpy(), rows["probability"].to_numpy(), rows["probability"].to_numpy() >= threshold
        rule = self.stored["levels"].get(level, {"threshold": self.threshold})
        assert rule.get("pooling", {}).get("method", "mean") == "mean"
        by = ["copy", f"{level}_id"] if "copy" in rows else [f"{level}_id"]
        groups = rows.groupby(by)
        pooled = groups["probability"].mean().to_numpy()
        calibration = rule.get("calibration", {})
        if calibration.get("method") == "platt":
            pooled = special.expit(calibration["slope"] * special.logit(pooled) + calibration["intercept"])
        return groups["label"].first().to_numpy(), pooled, pooled >= rule["threshold"]

    def abstained(self, rows: pd.DataFrame, name: str) -> float:
        truth = np.where(rows["label"] == 1, "malignant", "benign")
        withheld = (rows["decision"] == "abstain").to_numpy()
        right = withheld | (rows["decision"] == truth).to_numpy()
        if name == "deferred":
            return float(withheld.mean())
        if name == "error_decided":
            return float((~right[~withheld]).mean())
        if name == "error_all":
            return float(((rows["probability"] >= self.threshold) != (rows["label"] == 1)).mean())
        of_class = {"covered": None, "covered_malignant": 1, "covered_benign": 0}[name]
        chosen = np.ones(len(rows), dtype=bool) if of_class is None else (rows["label"] == of_class).to_numpy()
        by = ["copy", "patient_id"] if "copy" in rows else ["patient_id"]
        return float(rows.assign(right=right)[chosen].groupby(by)["right"].mean().mean())

    def risk(self, rows: pd.DataFrame) -> float:
        """The area under the risk-coverage curve, images in the order of their distance to the threshold."""
        distance = np.abs(special.logit(rows["probability"]) - special.logit(self.threshold)).to_numpy()
        wrong = ((rows["probability"] >= self.threshold) != (rows["label"] == 1)).to_numpy()
        surest = wrong[np.argsort(-distance, kind="stable")]
        return float(np.mean(np.cumsum(surest) / np.arange(1, len(surest) + 1)))

    def at_prevalence(self, rows: pd.DataFrame, name: str) -> float:
        truth, called = rows["label"] == 1, rows["probability"] >= self.threshold
        found, cleared = called[truth].mean(), (~called[~truth]).mean()
        share = self.lookup(f"{self.headline}.at_prevalence.prevalence")
        if name == "ppv":
            return float(found * share / (found * share + (1 - cleared) * (1 - share)))
        return float(cleared * (1 - share) / (cleared * (1 - share) + (1 - found) * share))

    def group(self, column: str, number: int) -> pd.DataFrame:
        assert column == "site"
        assert self.sites is not None
        rows = self.rows(self.headline)
        return rows[
            rows["path"].map(self.sites) == self.lookup(f"{self.headline}.subgroups.site.groups.{number}.value")
        ]

    def edges(self, key: str) -> tuple[float, float]:
        """The edges of a bin: they are tenths, in rising order."""
        entry = self.lookup(key)
        assert round(entry["lower"] * 10) + 1 == round(entry["upper"] * 10)
        return entry["lower"], entry["upper"]

    def within(self, name: str) -> np.ndarray:
        values = []
        for _, own in self.rows(self.headline).groupby("patient_id"):
            labels, probabilities, called = self.cases(own, "image")
            needs = {"auroc": {0, 1}, "sensitivity": {1}, "specificity": {0}, "accuracy": set()}[name]
            if needs <= set(labels.tolist()):
                values.append(figure(name, labels, probabilities, called))
        return np.array(values)

    def bootstrap(self, key: str, *, resamples: int = 200) -> tuple[float, float]:
        """A percentile interval over whole patients, drawn by another generator than ours."""
        rows, compute = self.statistic(key)
        parts = [own for _, own in self.rows(self.headline).groupby("patient_id")]
        kept = set(rows["path"])
        parts = [part[part["path"].isin(kept)] for part in parts]
        generator, values = np.random.default_rng(99), []
        for _ in range(resamples):
            drawn = [
                parts[place].assign(copy=copy)
                for copy, place in enumerate(generator.integers(0, len(parts), len(parts)))
            ]
            some = pd.concat(drawn)
            if some["label"].nunique() == 2:
                values.append(compute(some))
        low, high = np.nanquantile(values, (0.025, 0.975))
        return float(low), float(high)


def figure(name: str, labels: Any, probabilities: Any, called: Any) -> float:
    """A figure by its name in metrics.json."""
    if name in ("calibration_slope", "calibration_intercept"):
        return calibration(name, labels, probabilities)
    if name == "ece":
        bins = np.minimum((np.asarray(probabilities) * 15).astype(int), 14)
        return float(sum(abs(np.sum((probabilities - labels)[bins == place])) for place in range(15)) / len(labels))
    by_probability = {
        "auroc": sk.roc_auc_score,
        "auprc": sk.average_precision_score,
        "brier": sk.brier_score_loss,
        "loss": lambda y, p: sk.log_loss(y, p, labels=[0, 1]),
    }
    if name in by_probability:
        return float(by_probability[name](labels, probabilities))
    by_call = {
        "sensitivity": sk.recall_score,
        "specificity": lambda y, c: sk.recall_score(y, c, pos_label=0),
        "balanced_accuracy": sk.balanced_accuracy_score,
        "accuracy": sk.accuracy_score,
        "ppv": lambda y, c: sk.precision_score(y, c, zero_division=0),
        "npv": lambda y, c: sk.precision_score(y, c, pos_label=0, zero_division=0),
        "f1": lambda y, c: sk.f1_score(y, c, zero_division=0),
    }
    if name not in by_call:
        raise Unknown(name)
    return float(by_call[name](labels, np.asarray(called).astype(int)))


def calibration(name: str, labels: Any, probabilities: Any) -> float:
    logits = special.logit(np.clip(probabilities, 1e-12, 1 - 1e-12))
    if name == "calibration_slope":
        return float(LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logits[:, None], labels).coef_[0, 0])
    return float(optimize.brentq(lambda shift: float(np.mean(special.expit(logits + shift) - labels)), -20, 20))


def net_benefit(labels: Any, probabilities: Any, threshold: float) -> float:
    called = np.asarray(probabilities) >= threshold
    true, false = np.mean(called & (np.asarray(labels) == 1)), np.mean(called & (np.asarray(labels) == 0))
    return float(true - false * threshold / (1 - threshold))


def in_bin(rows: pd.DataFrame, low: float, high: float) -> pd.Series:
    below = rows["probability"] < high if high < 1 else rows["probability"] <= 1
    return (rows["probability"] >= low) & below


def _of_level(run: Recomputed, split: str, level: str, name: str) -> float:
    return figure(name, *run.cases(run.rows(split), level))


def _count(run: Recomputed, split: str, level: str, what: str) -> int:
    rows = run.rows(split)
    if what == "images":
        return len(rows)
    return int(rows["slide_id" if (level, what) == ("slide", "cases") else "patient_id"].nunique())


def _bin(run: Recomputed, split: str, number: str, what: str) -> Any:
    low, high = run.edges(f"{split}.calibration.reliability.{number}")
    rows = run.rows(split)[in_bin(run.rows(split), low, high)]
    return {
        "edges": (low, high),
        "n": len(rows),
        "mean_probability": float(rows["probability"].mean()),
        "observed": float(rows["label"].mean()),
    }[what]


def _expected_ece(run: Recomputed, split: str) -> float:
    values = run.rows(split)["probability"].to_numpy()
    generator = np.random.default_rng(5)
    return float(np.mean([figure("ece", generator.random(len(values)) < values, values, None) for _ in range(400)]))


def _curve(run: Recomputed, split: str, what: str, number: str) -> float:
    rows, threshold = run.rows(split), (int(number) + 1) / 100
    if what == "threshold":
        return threshold
    probabilities = rows["probability"] if what == "model" else np.ones(len(rows))
    return net_benefit(rows["label"], probabilities, threshold)


def _within(run: Recomputed, split: str, name: str, what: str) -> float:
    values = run.within(name)
    quantile = {"min": 0, "q1": 0.25, "median": 0.5, "q3": 0.75, "max": 1}
    return len(values) if what == "n" else float(np.quantile(values, quantile[what]))


def _group_count(run: Recomputed, split: str, column: str, number: str, what: str) -> int:
    rows = run.group(column, int(number))
    return {"images": len(rows), "patients": rows["patient_id"].nunique(), "malignant": int(rows["label"].sum())}[what]


def _group_figure(run: Recomputed, split: str, column: str, number: str, name: str) -> float:
    return figure(name, *run.cases(run.group(column, int(number)), "image"))


def _folds(run: Recomputed, name: str, what: str) -> Any:
    values = np.array([fold["figures"][name] for fold in run.stored["folds"]])
    if what == "mean":
        return float(values.mean())
    deviation = float(values.std(ddof=1))
    if what == "sd":
        return deviation
    share = 1 / len(values)
    half = stats.t.ppf(0.975, len(values) - 1) * deviation * np.sqrt(1 / len(values) + share / (1 - share))
    return max(0.0, values.mean() - half), min(1.0, values.mean() + half)


def _seeds(run: Recomputed, name: str, what: str) -> Any:
    values = np.array(run.stored["seeds"]["figures"][name]["values"])
    return float(values.mean()) if what == "mean" else (float(values.min()), float(values.max()))


def _patient(run: Recomputed, patient: str, what: str) -> Any:
    rows = run.rows(run.headline)
    own = rows[rows["patient_id"] == patient]
    assert len(own)
    labels, probabilities, called = run.cases(own, "image")
    if what == "auroc":
        return float(sk.roc_auc_score(labels, probabilities)) if len(set(labels.tolist())) == 2 else None
    return {
        "id": patient,
        "n_images": len(own),
        "true_share": float(labels.mean()),
        "called_share": float(called.mean()),
        "correct_share": float((called == labels).mean()),
    }[what]


def _split(run: Recomputed, split: str, what: str) -> Any:
    rows = run.split_table[run.split_table["split"] == split]
    return {
        "n_images": len(rows),
        "n_patients": rows["patient_id"].nunique(),
        "malignant_share": float(rows["label"].mean()),
    }[what]


def _mistakes(run: Recomputed, kind: str) -> int:
    label, decision = {"missed": (1, "benign"), "false_alarms": (0, "malignant")}[kind]
    rows = run.rows(run.headline)
    return int(((rows["label"] == label) & (rows["decision"] == decision)).sum())


def _region(run: Recomputed, alone: str | None) -> tuple[float, float]:
    """The stored region, once it is seen to withhold just the images that the table withholds."""
    stored, which = (run.stored["context"]["alone"], "_alone") if alone else (run.stored, "")
    low, high = stored["abstention"]["low"], stored["abstention"]["high"]
    withheld = run.table[f"decision{which}"] == "abstain"
    inside = (run.table[f"probability{which}"] >= low) & (run.table[f"probability{which}"] <= high)
    assert (withheld == inside).all()
    return low, high


def _units(run: Recomputed, alone: str | None) -> int:
    """Patients of the splits that decisions were chosen on."""
    chosen = ["train", "validation"] if "crossfit" in run.stored["protocol"] else ["validation"]
    return int(run.table.loc[run.table["split"].isin(chosen), "patient_id"].nunique())


def _field(run: Recomputed) -> str:
    field = json.loads((run.folder / "environment.json").read_text(encoding="utf-8"))["model"]["field"]
    return f"{field} × {field}"


def _classification_report(run: Recomputed, split: str) -> str:
    labels, _, called = run.cases(run.rows(split), "image")
    names = ["benign", "malignant"]
    return str(sk.classification_report(labels, called.astype(int), target_names=names, digits=2))


def _text(run: Recomputed, key: str) -> str:
    return str(run.lookup(key))


_SPLIT = r"(?P<split>train|validation|test)"
_FIGURE = (
    r"(?P<name>auroc|auprc|sensitivity|specificity|balanced_accuracy|ppv|npv|f1|accuracy|brier|ece|loss"
    r"|calibration_slope|calibration_intercept)"
)
_LEVEL = r"(?P<level>image|image_alone|image_at_0\.5|slide|patient)"
_ALONE = r"(?P<alone>context\.alone\.)?"
RULES: tuple[tuple[str, Callable[..., Any]], ...] = (
    (rf"{_SPLIT}\.{_LEVEL}\.{_FIGURE}\.value", _of_level),
    (rf"{_SPLIT}\.{_LEVEL}\.n_(?P<what>images|patients|cases)", _count),
    (rf"{_SPLIT}\.image\.malignant_share", lambda run, split: float(run.rows(split)["label"].mean())),
    (rf"{_SPLIT}\.at_prevalence\.observed", lambda run, split: float(run.rows(split)["label"].mean())),
    (
        rf"{_SPLIT}\.at_prevalence\.(?P<name>ppv|npv)\.value",
        lambda run, split, name: run.at_prevalence(run.rows(split), name),
    ),
    (rf"{_SPLIT}\.abstention\.(?P<name>\w+)\.value", lambda run, split, name: run.abstained(run.rows(split), name)),
    (rf"{_SPLIT}\.risk_coverage\.area\.value", lambda run, split: run.risk(run.rows(split))),
    (rf"{_SPLIT}\.calibration\.ece_expected", _expected_ece),
    (rf"{_SPLIT}\.calibration\.reliability\.(?P<number>\d+)\.(?P<what>edges|n|mean_probability|observed)", _bin),
    (rf"{_SPLIT}\.decision_curve\.(?P<what>threshold|model|treat_all)\.(?P<number>\d+)", _curve),
    (rf"{_SPLIT}\.within_patients\.(?P<name>\w+)\.(?P<what>\w+)", _within),
    (rf"{_SPLIT}\.subgroups\.(?P<column>\w+)\.groups\.(?P<number>\d+)\.n_(?P<what>\w+)", _group_count),
    (rf"{_SPLIT}\.subgroups\.(?P<column>\w+)\.groups\.(?P<number>\d+)\.(?P<name>\w+)\.value", _group_figure),
    (rf"{_SPLIT}\.classification_report", _classification_report),
    (r"across_folds\.(?P<name>\w+)\.(?P<what>\w+)", _folds),
    (r"seeds\.figures\.(?P<name>\w+)\.(?P<what>\w+)", _seeds),
    (r"seeds\.seeds\.length", lambda run: len(run.stored["seeds"]["seeds"])),
    (r"patients\.(?P<patient>.*)\.(?P<what>\w+)", _patient),
    (rf"split\.{_SPLIT}\.(?P<what>\w+)", _split),
    (r"mistakes\.(?P<kind>\w+)", _mistakes),
    (
        r"predictions\.(?P<path>.*)\.probability",
        lambda run, path: float(run.table.set_index("path").loc[path, "probability"]),
    ),
    (rf"{_ALONE}abstention\.region", _region),
    (rf"{_ALONE}abstention\.n_units", _units),
    (r"model\.field", _field),
    (
        r"(?P<key>.*(?:\.note|\.reason|\.text|_note|\.not_applicable|\.not_attainable|groups\.\d+\.value))",
        _text,
    ),
)
"""Pattern of a key, and what computes it; the first that fits does."""
