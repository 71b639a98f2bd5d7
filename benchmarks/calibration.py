"""Which calibration and which pooling are chosen, and what they do for new patients, on data whose truth is known.

    python benchmarks/calibration.py
    python benchmarks/calibration.py --patients 20 --repeats 50
    python benchmarks/calibration.py --part pooling

Labels are drawn from true probabilities that a patient's images share in part; logits are those
probabilities, distorted. Every figure is the mean over repeats, on 400 new patients (or slides) each time.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from clearmargin.decision import MEAN, Calibration, Level, Temperature, pool_mean, probability, sigmoid
from clearmargin.evaluation import metrics
from clearmargin.evaluation.calibration import CALIBRATIONS, choose_calibration
from clearmargin.evaluation.pooling import Method, choose_level
from clearmargin.evaluation.reliability import calibration_slope_intercept

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

NEW_UNITS = 400
SHAPES: Mapping[str, Callable[[Floats], Floats]] = {
    "honest": lambda logits: logits,
    "3 times too certain": lambda logits: 3 * logits,
    "too timid, and shifted": lambda logits: 0.5 * logits + 1,
    "certain of malignant only": lambda logits: np.where(logits > 0, 5 * logits, 0.7 * logits),
    "steps": lambda logits: 2 * logits + 3 * np.tanh(4 * (logits - 1)) + 3 * np.tanh(4 * (logits + 1.5)),
}
TRUTHS = ("one malignant image", "all images a little", "a tenth of the images")


def main() -> None:
    arguments = read_arguments()
    if arguments.part in ("both", "calibration"):
        report_calibration(arguments.patients, arguments.images, arguments.repeats, arguments.seed)
        report_coverage(arguments.repeats, arguments.seed)
    if arguments.part in ("both", "pooling"):
        report_pooling(arguments.slides, arguments.images, arguments.repeats, arguments.seed)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--part", choices=("both", "calibration", "pooling"), default="both")
    parser.add_argument("--patients", type=int, default=60, help="in the validation split")
    parser.add_argument("--slides", type=int, default=80, help="in the validation split")
    parser.add_argument("--images", type=int, default=30, help="of each patient or slide")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def report_calibration(n_patients: int, images_each: int, repeats: int, seed: int) -> None:
    print(f"\nCalibration chosen on {n_patients} patients of {images_each} images, {repeats} repeats\n")
    print("| logits | chosen | Brier before | after | of the truth | ECE before | after | slope before | after |")
    print("|---|---|---|---|---|---|---|---|---|")
    for shape, distort in SHAPES.items():
        rng = np.random.default_rng(seed)
        chosen: Counter[str] = Counter()
        rows = []
        for repeat in range(repeats):
            labels, honest, patients = draw_patients(rng, n_patients, images_each)
            calibration = choose_calibration(labels, distort(honest), patients, seed=repeat).calibration
            chosen[calibration.method] += 1
            new, honest, _ = draw_patients(rng, NEW_UNITS, images_each)
            before = figures(new, distort(honest), Temperature())
            after = figures(new, distort(honest), calibration)
            truth = metrics.brier(new, probability(honest))
            rows.append([before[0], after[0], truth, before[1], after[1], before[2], after[2]])
        methods = ", ".join(f"{name} {chosen[name]}" for name in CALIBRATIONS if chosen[name])
        means = " | ".join(f"{value:.4f}" if place < 5 else f"{value:.2f}" for place, value in enumerate(mean(rows)))
        print(f"| {shape} | {methods} | {means} |")


def report_coverage(repeats: int, seed: int) -> None:
    print(f"\nHow often the 95 % intervals over patients hold the truth, {20 * repeats} repeats\n")
    print("| patients | slope | intercept | intercept, if images were independent |")
    print("|---|---|---|---|")
    for n_patients in (10, 20, 50):
        rng = np.random.default_rng(seed)
        held: list[list[float]] = []
        for _ in range(20 * repeats):
            sizes = np.maximum(3, rng.lognormal(2.5, 1.0, size=n_patients).astype(np.int64))
            labels, probabilities, patients = draw_alike(rng, np.repeat(np.arange(n_patients), sizes))
            slope, intercept = calibration_slope_intercept(labels, probabilities, patients)
            _, naive = calibration_slope_intercept(labels, probabilities, None)
            estimates = ((slope, 1.0), (intercept, 0.0), (naive, 0.0))
            held.append([e.low is not None and e.high is not None and e.low <= t <= e.high for e, t in estimates])
        print(f"| {n_patients} | " + " | ".join(f"{value:.1%}" for value in mean(held)) + " |")


def report_pooling(n_slides: int, images_each: int, repeats: int, seed: int) -> None:
    print(f"\nPooling chosen on {n_slides} slides of {images_each} images, {repeats} repeats\n")
    print("| a malignant slide shows it in | chosen | Brier of mean | mean, fitted | choice | AUROC of mean | choice |")
    print("|---|---|---|---|---|---|---|")
    for truth in TRUTHS:
        rng = np.random.default_rng(seed)
        chosen: Counter[str] = Counter()
        rows = []
        for repeat in range(repeats):
            labels, probabilities, slides = draw_slides(rng, truth, n_slides, images_each)
            level = choose(labels, probabilities, slides, "auto", repeat)
            fitted = choose(labels, probabilities, slides, "mean", repeat)
            chosen[level.pooling.method + (f" k={level.pooling.k}" if level.pooling.k else "")] += 1
            new = draw_slides(rng, truth, NEW_UNITS, images_each)
            unfitted = slide_figures(Level(pooling=MEAN, threshold=0.5), new)
            by_mean, by_choice = slide_figures(fitted, new), slide_figures(level, new)
            rows.append([unfitted[0], by_mean[0], by_choice[0], by_mean[1], by_choice[1]])
        methods = ", ".join(f"{name} {n}" for name, n in chosen.most_common())
        print(f"| {truth} | {methods} | " + " | ".join(f"{value:.3f}" for value in mean(rows)) + " |")


def choose(labels: Integers, probabilities: Floats, slides: Integers, pooling: Method, seed: int) -> Level:
    level = choose_level(
        labels, probabilities, slides, None, level="slide", pooling=pooling, image_threshold=0.5, seed=seed
    )
    if isinstance(level, str):
        raise SystemExit(level)
    return level


def draw_patients(rng: np.random.Generator, n_patients: int, images_each: int) -> tuple[Integers, Floats, Integers]:
    """Labels, the logits of their true probabilities, patients."""
    patients = np.repeat(np.arange(n_patients), images_each)
    honest = 1.5 * rng.normal(size=len(patients)) + rng.normal(size=n_patients)[patients] - 0.5
    return (rng.random(len(patients)) < sigmoid(honest)).astype(np.int64), honest, patients


def draw_alike(rng: np.random.Generator, patients: Integers) -> tuple[Integers, Floats, Integers]:
    """Labels whose errors a patient's images share, and probabilities that are right over many patients."""
    n_patients, n = int(patients.max()) + 1, len(patients)
    shared, own = rng.normal(size=n_patients)[patients], rng.normal(size=n)
    probabilities = sigmoid(0.7 * rng.normal(size=n_patients)[patients] + 1.2 * rng.normal(size=n) - 0.5)
    # The rank of a normal number is a uniform one, and below the probability just as often as that says.
    below = np.sqrt(0.3) * shared + np.sqrt(0.7) * own < stats.norm.ppf(probabilities)
    return below.astype(np.int64), probabilities, patients


def draw_slides(
    rng: np.random.Generator, truth: str, n_slides: int, images_each: int
) -> tuple[Integers, Floats, Integers]:
    """Each image's label (its slide's), probability, slide; half of the slides are malignant."""
    slides = np.repeat(np.arange(n_slides), images_each)
    labels = np.arange(n_slides) % 2
    logits = rng.normal(size=len(slides)) + 0.7 * rng.normal(size=n_slides)[slides] - 2
    rank = np.arange(len(slides)) % images_each
    affected = {TRUTHS[0]: 1, TRUTHS[1]: images_each, TRUTHS[2]: max(1, images_each // 10)}[truth]
    shift = {TRUTHS[0]: 5.0, TRUTHS[1]: 1.5, TRUTHS[2]: 3.0}[truth]
    logits += shift * labels[slides] * (rank < affected)
    return labels[slides], sigmoid(logits), slides


def figures(labels: Integers, logits: Floats, calibration: Calibration) -> tuple[float, float, float]:
    """Brier score, ECE and calibration slope."""
    values = probability(logits, calibration)
    slope, _ = calibration_slope_intercept(labels, values, None)
    return metrics.brier(labels, values), metrics.ece(labels, values), slope.value or float("nan")


def slide_figures(level: Level, drawn: tuple[Integers, Floats, Integers]) -> tuple[float, float]:
    """Brier score and AUROC of slides."""
    labels, probabilities, slides = drawn
    n_slides = int(slides.max()) + 1
    values = level.probability(probabilities, slides, n_slides)
    truth = pool_mean(labels.astype(np.float64), slides, n_slides).astype(np.int64)
    return metrics.brier(truth, values), metrics.auroc(truth, values)


def mean(rows: list[list[float]]) -> list[float]:
    return [float(value) for value in np.mean(np.array(rows, dtype=np.float64), axis=0)]


if __name__ == "__main__":
    main()
