"""How often the interval over folds holds what the procedure achieves: Nadeau and Bengio's, and s / sqrt(n).

    python benchmarks/folds.py
    python benchmarks/folds.py --studies 200 --folds 10 --repeats 1

Each study draws patients whose images resemble each other, cross-validates a logistic regression on whole patients,
and compares the interval with the procedure's true figure: its mean over many training sets of the fold's size, each
tested on a large population.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from clearmargin.evaluation.folds import across_folds
from clearmargin.evaluation.metrics import auroc

Floats = NDArray[np.float64]
FEATURES, IMAGES_EACH = 8, 10


def main() -> None:
    arguments = read_arguments()
    rng = np.random.default_rng(arguments.seed)
    print(f"{arguments.studies} studies, {IMAGES_EACH} images a patient, logistic regression, AUROC\n")
    print("| patients | folds | repeats | share held, Nadeau-Bengio | share held, s / sqrt(n) | width of the former |")
    print("|---|---|---|---|---|---|")
    for n_patients in arguments.patients:
        truth = true_figure(n_patients * (arguments.folds - 1) // arguments.folds, rng)
        for repeats in arguments.repeats:
            honest, naive, width = coverage(
                truth, n_patients, folds=arguments.folds, repeats=repeats, studies=arguments.studies, rng=rng
            )
            print(f"| {n_patients} | {arguments.folds} | {repeats} | {honest:.3f} | {naive:.3f} | {width:.3f} |")


def draw_patients(n_patients: int, rng: np.random.Generator) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Features (N, FEATURES), labels, patients: each patient has a place in feature space and a share of malignant."""
    patients = np.repeat(np.arange(n_patients), IMAGES_EACH)
    labels = (rng.random(len(patients)) < rng.beta(2, 2, size=n_patients)[patients]).astype(np.int64)
    places = rng.normal(size=(n_patients, FEATURES))[patients]
    features = places + rng.normal(size=(len(patients), FEATURES)) + 0.6 * labels[:, None]
    return features, labels, patients


def true_figure(n_train: int, rng: np.random.Generator, training_sets: int = 200) -> float:
    """The mean AUROC, over training sets of so many patients, of a new population."""
    features, labels, _ = draw_patients(2_000, rng)
    figures = []
    for _ in range(training_sets):
        seen, known, _ = draw_patients(n_train, rng)
        figures.append(auroc(labels, LogisticRegression().fit(seen, known).decision_function(features)))
    return float(np.mean(figures))


def coverage(
    truth: float, n_patients: int, *, folds: int, repeats: int, studies: int, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Share of studies whose interval holds the truth, by either, and the mean width of the first."""
    honest = naive = 0
    widths = []
    for _ in range(studies):
        values = cross_validate(n_patients, folds=folds, repeats=repeats, rng=rng)
        low, high = across_folds(values, test_share=1 / folds)["ci"]
        half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
        honest += low <= truth <= high
        naive += abs(values.mean() - truth) <= half
        widths.append(high - low)
    return honest / studies, naive / studies, float(np.mean(widths))


def cross_validate(n_patients: int, *, folds: int, repeats: int, rng: np.random.Generator) -> Floats:
    """The AUROC of each fold of each repeat, (repeats * folds,), of a newly drawn study."""
    features, labels, patients = draw_patients(n_patients, rng)
    values = []
    for _ in range(repeats):
        splitter = GroupKFold(folds, shuffle=True, random_state=int(rng.integers(2**31)))
        for train, test in splitter.split(features, labels, patients):
            model = LogisticRegression().fit(features[train], labels[train])
            values.append(auroc(labels[test], model.decision_function(features[test])))
    return np.array(values)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--patients", type=int, nargs="+", default=[30, 100])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--repeats", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
