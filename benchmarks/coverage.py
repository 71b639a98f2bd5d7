"""How often 95 % intervals hold the truth, for simulated studies of few and many patients.

    python benchmarks/coverage.py
    python benchmarks/coverage.py --trials 1000 --patients 10 30 100

A study has patients with 1 to 60 images (skewed: half have fewer than 8), whose images are alike by the
intra-patient correlation (ICC), and one class or both. The second model, for the differences, is as good as
the first; it shares half of its noise. Prints a Markdown table: coverage in per cent and mean width of each
method, over AUROC 0.75 and 0.9, patients of one class and of both. The package takes `jackknife` for figures,
`plain jackknife` for differences (units - 1 degrees of freedom, however the images are shared), and `widened`
for both where there is no jackknife. A standard error of the
coverage is below 100 * sqrt(0.05 * 0.95 / studies) per cent, 4 cells to a row.
"""

from __future__ import annotations

import argparse
import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from clearmargin.decision import probability
from clearmargin.evaluation.bootstrap import LEAST_DEFINED
from clearmargin.evaluation.intervals import Interval, difference_interval, figure_interval
from clearmargin.evaluation.metrics import Floats
from clearmargin.evaluation.units import degrees_of_freedom, units_behind
from clearmargin.evaluation.weighted import Integers, weighted_figures

FIGURES = ("auroc", "auprc", "balanced_accuracy", "sensitivity", "specificity", "ppv", "npv", "brier")
DIFFERENCES = ("auroc", "sensitivity")
METHODS = ("percentile", "BCa", "expanded", "widened", "plain jackknife", "jackknife")
POPULATION = 150_000
Z = 1.959964


@dataclass(frozen=True)
class World:
    """What the patients of a study come from."""

    icc: float
    auroc: float
    mixed: bool

    @property
    def threshold(self) -> float:
        """The share of malignant images, where sensitivity and specificity are alike."""
        return 1 / 3 if self.mixed else 0.4


@dataclass(frozen=True)
class Study:
    labels: Integers
    probabilities: Floats
    others: Floats
    patients: Integers


@dataclass(frozen=True)
class Estimate:
    """A figure of one study, its resamples, its jackknife, the units behind it, and their degrees of freedom."""

    value: float
    resampled: Floats
    jackknife: Floats
    n_units: int
    degrees: float


def main() -> None:
    arguments = read_arguments()
    print("| figure | patients | ICC | " + " | ".join(METHODS) + " | no interval |")
    print("|---|---|---|" + "---|" * (len(METHODS) + 1))
    for n_patients in arguments.patients:
        for icc in arguments.icc:
            worlds = [World(icc, auroc, mixed) for auroc, mixed in itertools.product((0.75, 0.9), (True, False))]
            held, widths, none = measure(worlds, n_patients, arguments)
            for figure, of_methods in held.items():
                cells = " | ".join(
                    f"{100 * covered:.1f} ({width:.3f})"
                    for covered, width in zip(of_methods, widths[figure], strict=True)
                )
                print(f"| {figure} | {n_patients} | {icc:g} | {cells} | {100 * none[figure]:.1f} % |", flush=True)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=300, help="studies a cell; 4 cells to a row (default 300)")
    parser.add_argument("--resamples", type=int, default=800, help="bootstrap resamples (default 800)")
    parser.add_argument("--patients", type=int, nargs="+", default=[10, 30, 100], help="default 10 30 100")
    parser.add_argument("--icc", type=float, nargs="+", default=[0.0, 0.2, 0.5, 0.8], help="default 0 0.2 0.5 0.8")
    parser.add_argument("--seed", type=int, default=0, help="of the studies (default 0)")
    return parser.parse_args()


def measure(
    worlds: list[World], n_patients: int, arguments: argparse.Namespace
) -> tuple[dict[str, Floats], dict[str, Floats], dict[str, float]]:
    """For each figure: coverage (methods,), mean width (methods,), and the share of studies without an interval."""
    found: dict[str, list[list[tuple[bool, float]]]] = {}
    for number, world in enumerate(worlds):
        rng = np.random.default_rng((arguments.seed, n_patients, round(100 * world.icc), number))
        truths = population_figures(world)
        for _ in range(arguments.trials):
            study = draw_study(rng, world, n_patients=n_patients)
            for figure, estimate in estimates(rng, study, world, resamples=arguments.resamples):
                ends = intervals(estimate, is_difference=figure not in truths)
                truth = truths.get(figure, 0.0)
                found.setdefault(figure, []).append([(low <= truth <= high, high - low) for low, high in ends])
    held, widths, none = {}, {}, {}
    for figure, studies in found.items():
        table = np.array([row for row in studies if row], dtype=np.float64)
        held[figure], widths[figure] = table.mean(axis=0).T
        none[figure] = 1 - len(table) / len(studies)
    return held, widths, none


def draw_study(rng: np.random.Generator, world: World, *, n_patients: int) -> Study:
    sizes = np.clip(np.round(np.exp(rng.normal(2, 1, size=n_patients))), 1, 60).astype(np.int64)
    patients = np.repeat(np.arange(n_patients), sizes)
    share = rng.beta(1.5, 3.0, size=n_patients) if world.mixed else rng.random(n_patients) < world.threshold
    labels = (rng.random(len(patients)) < share[patients]).astype(np.int64)
    first, second, shared = (_draw_noise(rng, world, labels, patients, n_patients) for _ in range(3))
    distance = np.sqrt(2) * stats.norm.ppf(world.auroc)

    def calibrated(noise: Floats) -> Floats:
        evidence = distance * (distance * labels + noise - distance / 2)
        return probability(evidence + np.log(world.threshold / (1 - world.threshold)))

    return Study(
        labels, calibrated((first + shared) / np.sqrt(2)), calibrated((second + shared) / np.sqrt(2)), patients
    )


def _draw_noise(
    rng: np.random.Generator, world: World, labels: Integers, patients: Integers, n_patients: int
) -> Floats:
    """Noise of variance 1: the patient's share is the ICC, half of it the same for both classes."""
    of_patient = (rng.normal(size=n_patients)[patients] + rng.normal(size=(n_patients, 2))[patients, labels]) / 2**0.5
    noise: Floats = np.sqrt(world.icc) * of_patient + np.sqrt(1 - world.icc) * rng.normal(size=len(labels))
    return noise


@functools.cache
def population_figures(world: World) -> dict[str, float]:
    """The truth, from very many patients."""
    study = draw_study(np.random.default_rng(99), world, n_patients=POPULATION)
    once = np.ones((1, POPULATION), dtype=np.int64)
    values = weighted_figures(
        study.labels, study.probabilities, study.patients, once, threshold=world.threshold, figures=FIGURES
    )
    return {figure: float(value[0]) for figure, value in values.items()}


def estimates(
    rng: np.random.Generator, study: Study, world: World, *, resamples: int
) -> Iterator[tuple[str, Estimate]]:
    """Every figure of the study, and the differences between its two models."""
    n_patients = int(study.patients[-1]) + 1
    counts = np.concatenate(
        [
            np.ones((1, n_patients), dtype=np.int64),
            1 - np.eye(n_patients, dtype=np.int64),
            rng.multinomial(n_patients, np.full(n_patients, 1 / n_patients), size=resamples),
        ]
    )

    def figures_of(probabilities: Floats, names: tuple[str, ...]) -> dict[str, Floats]:
        return weighted_figures(
            study.labels, probabilities, study.patients, counts, threshold=world.threshold, figures=names
        )

    called: NDArray[np.bool_] = study.probabilities >= world.threshold
    values, others = figures_of(study.probabilities, FIGURES), figures_of(study.others, DIFFERENCES)
    differences = {f"difference of {figure}": values[figure] - others[figure] for figure in DIFFERENCES}
    for name, of_counts in (values | differences).items():
        figure = name.removeprefix("difference of ")
        yield (
            name,
            Estimate(
                float(of_counts[0]),
                of_counts[1 + n_patients :],
                of_counts[1 : 1 + n_patients],
                units_behind(figure, study.labels, study.patients, called=called),
                degrees_of_freedom(figure, study.labels, study.patients, called=called),
            ),
        )


def intervals(estimate: Estimate, *, is_difference: bool) -> list[tuple[float, float]]:
    """The interval of each of METHODS; none where the package has none, or by another rule than these."""
    of_package = difference_interval if is_difference else figure_interval
    value, resampled, n_units = estimate.value, estimate.resampled, estimate.n_units
    of_widened = of_package(value, resampled, n_units=n_units, degrees=estimate.degrees)
    of_jackknife = [
        of_package(value, resampled, n_units=n_units, degrees=degrees, jackknife=estimate.jackknife)
        for degrees in (None, estimate.degrees)
    ]
    found = [interval for interval in (of_widened, *of_jackknife) if isinstance(interval, Interval)]
    if len(found) < 3 or found[-1].method != "jackknife" or np.isfinite(resampled).mean() < LEAST_DEFINED:
        return []
    defined = resampled[np.isfinite(resampled)]
    z = np.array([-Z, Z])
    expanded = z / Z * stats.t.ppf(0.975, n_units - 1) * np.sqrt(n_units / (n_units - 1))
    tails = [stats.norm.cdf(z), _bca_tails(estimate, defined), stats.norm.cdf(expanded)]
    ends: list[list[float]] = [np.quantile(defined, of_method).tolist() for of_method in tails]
    return [(low, high) for low, high in ends] + [(interval.low, interval.high) for interval in found]


def _bca_tails(estimate: Estimate, defined: Floats) -> Floats:
    """The quantiles that BCa takes (Efron and Tibshirani 1993, chapter 14), with the jackknife's acceleration."""
    steps = estimate.jackknife.mean() - estimate.jackknife
    acceleration = (steps**3).sum() / (6 * (steps**2).sum() ** 1.5)
    below = (defined < estimate.value).mean() + (defined == estimate.value).mean() / 2
    bias = stats.norm.ppf(np.clip(below, 1e-4, 1 - 1e-4))
    moved = bias + np.array([-Z, Z])
    tails: Floats = stats.norm.cdf(bias + moved / (1 - acceleration * moved))
    return tails


if __name__ == "__main__":
    main()
