"""Whether the promises hold in simulation: of abstention on new patients, and of the interval of a chosen threshold.

    python benchmarks/abstention.py
    python benchmarks/abstention.py --studies 4000       # finer, and as many times slower

The patients have 2 to 60 images, those with few being harder, their own mix of benign and malignant, and a
shift of the logit of their own: its standard deviation is the patient effect, that of a single image's is 1.
Prints Markdown tables, each share with its Monte Carlo standard error.
"""

from __future__ import annotations

import argparse
import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clearmargin.decision import Abstention, Temperature, decide, probability
from clearmargin.evaluation import metrics
from clearmargin.evaluation.bootstrap import percentile_interval, resampled_figures
from clearmargin.evaluation.conformal import fit_abstention
from clearmargin.evaluation.operating_point import Rule, choose_operating_point, resampled_thresholds
from clearmargin.evaluation.selective import resampled_abstention

Study = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]

PATIENTS = (19, 40, 100)
COVERAGES = (0.8, 0.9, 0.95)
EFFECTS = (0.0, 1.0, 2.0)
NEW_PATIENTS = 200
TEST_PATIENTS = 40
THRESHOLD = 0.5
RESAMPLES = 200
RULES: tuple[Rule, ...] = ("balanced", "sensitivity", "specificity", "net_benefit")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=500, help="simulated studies a row (default 500)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation (default 0)")
    arguments = parser.parse_args()
    print_abstention(arguments.studies, seed=arguments.seed)
    print()
    print_intervals(arguments.studies // 2, seed=arguments.seed)


def draw_patients(rng: np.random.Generator, n_patients: int, *, effect: float) -> Study:
    """Labels, logits and patients of new patients."""
    n_images = rng.integers(2, 61, size=n_patients)
    patients = np.repeat(np.arange(n_patients), n_images)
    labels = (rng.random(len(patients)) < rng.beta(0.7, 1.2, size=n_patients)[patients]).astype(np.int64)
    ease = 0.5 + (n_images / 30.0)[patients]
    shift = effect * rng.normal(size=n_patients)
    logits = ease * (2 * labels - 1) + shift[patients] + rng.normal(size=len(patients))
    return labels, logits, patients


def print_abstention(studies: int, *, seed: int) -> None:
    print(f"Abstention: {studies:,} studies a row, {NEW_PATIENTS} new patients each.\n")
    print("| Effect | Patients | Asked | Covered | Withheld | Wrong of decided | Wrong of all | Covered, by image |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for effect, n_patients, coverage in itertools.product(EFFECTS, PATIENTS, COVERAGES):
        rng = np.random.default_rng((seed, n_patients, int(100 * coverage), int(10 * effect)))
        found = np.array([one_study(rng, n_patients, coverage=coverage, effect=effect) for _ in range(studies)])
        means = np.nanmean(found, axis=0)
        errors = np.nanstd(found, axis=0) / np.sqrt(studies)
        cells = [f"{mean:.3f} ± {error:.3f}" for mean, error in zip(means, errors, strict=True)]
        print(f"| {effect:g} | {n_patients} | {coverage:g} | {' | '.join(cells)} |", flush=True)


def one_study(rng: np.random.Generator, n_patients: int, *, coverage: float, effect: float) -> list[float]:
    """Covered, withheld, wrong of the decided, wrong of all; covered, had the images been taken as exchangeable."""
    labels, logits, patients = draw_patients(rng, n_patients, effect=effect)
    new = draw_patients(rng, NEW_PATIENTS, effect=effect)
    by_patient, by_image = (
        answer(
            new,
            fit_abstention(labels, logits, groups, coverage=coverage, calibration=Temperature(), threshold=THRESHOLD),
        )
        for groups in (patients, None)
    )
    names = ("covered", "deferred", "error_decided", "error_all")
    return [*(by_patient[name] for name in names), by_image["covered"]]


def answer(new: Study, region: Abstention | str) -> dict[str, float]:
    """The figures of abstention on new patients."""
    if isinstance(region, str):
        raise SystemExit(region)
    labels, logits, patients = new
    probabilities = probability(logits)
    decisions = decide(probabilities, THRESHOLD, abstain_between=region.between)
    figures = resampled_abstention(labels, probabilities, decisions, patients, threshold=THRESHOLD, resamples=0, seed=0)
    return {name: value for name, (value, _) in figures.items()}


def print_intervals(studies: int, *, seed: int) -> None:
    print(
        f"95 % intervals on {TEST_PATIENTS} test patients, the threshold chosen on as many validation patients: "
        f"{studies:,} studies a row.\n"
    )
    print("| Rule | Figure | Mean | Holds the mean, threshold resampled | Holds the mean, threshold taken as given |")
    print("|---|---|---:|---:|---:|")
    labels, logits, _ = draw_patients(np.random.default_rng((seed, 1)), 20_000, effect=1.0)
    population = labels, probability(logits)
    for rule in RULES:
        rng = np.random.default_rng((seed, 2))
        found = [interval_study(rng, rule, population, seed=study) for study in range(studies)]
        for name in ("sensitivity", "specificity"):
            mean = np.mean([study["true"][name] for study in found])
            cells = []
            for kind in ("resampled", "fixed"):
                low, high = np.transpose([study[kind][name] for study in found])
                held = np.mean((low <= mean) & (mean <= high))
                cells.append(f"{held:.3f} ± {np.sqrt(held * (1 - held) / studies):.3f}")
            print(f"| {rule} | {name} | {mean:.3f} | {' | '.join(cells)} |", flush=True)


def interval_study(
    rng: np.random.Generator, rule: Rule, population: tuple[NDArray[np.int64], NDArray[np.float64]], *, seed: int
) -> dict[str, dict[str, Any]]:
    """The true figures at the threshold that this study chooses, and the two kinds of interval of its test figures."""
    labels, logits, patients = draw_patients(rng, TEST_PATIENTS, effect=1.0)
    chosen_on = probability(logits)
    threshold = choose_operating_point(labels, chosen_on, rule=rule, target_sensitivity=0.9).threshold
    again = resampled_thresholds(
        labels, chosen_on, patients, rule=rule, target_sensitivity=0.9, resamples=RESAMPLES, seed=seed
    )
    labels, logits, patients = draw_patients(rng, TEST_PATIENTS, effect=1.0)
    study: dict[str, dict[str, Any]] = {"true": figures_at(threshold, *population)}
    for kind, thresholds in (("resampled", again), ("fixed", threshold)):
        values = resampled_figures(
            labels,
            probability(logits),
            patients,
            threshold=thresholds,
            resamples=RESAMPLES,
            seed=seed,
            figures=["sensitivity", "specificity"],
        )
        study[kind] = {name: percentile_interval(of) or (1.0, 0.0) for name, of in values.items()}
    return study


def figures_at(threshold: float, labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> dict[str, float]:
    table = metrics.confusion(labels, metrics.calls(probabilities, threshold))
    return {name: float(metrics.THRESHOLD_FIGURES[name](table)) for name in ("sensitivity", "specificity")}


if __name__ == "__main__":
    main()
