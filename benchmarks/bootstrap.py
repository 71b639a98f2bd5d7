"""How long the bootstrap over patients takes, stage by stage, beside the pace of one bare pass over the scores.

    python benchmarks/bootstrap.py
    python benchmarks/bootstrap.py --patients 0          # every image its own unit
    python benchmarks/bootstrap.py --naive 3             # also the straightforward way, measured on 3 resamples

The default size is that of the IDC patches: 277,524 predictions of 279 patients. The bare pass is one
`numpy.cumsum` over as many float64 scores for each resample, the least that a method which walks the sorted
scores in floating point can do.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from clearmargin.decision import probability
from clearmargin.evaluation import metrics
from clearmargin.evaluation.bootstrap import draw_units, patient_intervals, resampled_figures

THRESHOLD = 0.3


def main() -> None:
    arguments = read_arguments()
    n_images, n_patients, resamples = arguments.images, arguments.patients, arguments.resamples
    labels, probabilities, patients = draw_data(n_images, n_patients, seed=arguments.seed)
    groups = patients if n_patients else None
    n_units = n_patients or n_images

    def figures(*names: str) -> None:
        resampled_figures(
            labels, probabilities, groups, threshold=THRESHOLD, resamples=resamples, seed=0, figures=names
        )

    def draws() -> None:
        for resample in range(resamples):
            draw_units(n_units, resample=resample, seed=0)

    def bare_passes() -> None:
        summed = np.empty(n_images)
        for _ in range(resamples):
            np.cumsum(probabilities, out=summed)

    def intervals() -> None:
        patient_intervals(labels, probabilities, groups, threshold=THRESHOLD, resamples=resamples, seed=0)

    unit = f"{n_patients:,} patients" if n_patients else "each its own unit"
    print(f"{n_images:,} predictions, {unit}, {resamples:,} resamples")
    report("drawing the units", seconds(draws), n_images * resamples)
    report("figures at the threshold, Brier, ECE", seconds(lambda: figures(*other_figures())), n_images * resamples)
    report("AUROC and AUPRC alone", seconds(lambda: figures("auroc", "auprc")), n_images * resamples)
    report("everything: patient_intervals", seconds(intervals), n_images * resamples)
    report("limit: one bare cumsum a resample", seconds(bare_passes), n_images * resamples)
    if arguments.naive:
        took = seconds(lambda: resample_rows(labels, probabilities, patients, resamples=arguments.naive))
        report("resampling rows, scikit-learn (scaled up)", took / arguments.naive * resamples, n_images * resamples)
    # Linux counts the largest resident size in KiB, macOS in bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f"{'peak memory of the process':<44}{peak / 1e6:>9.0f} MB")


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=277_524, help="predictions (default 277524)")
    parser.add_argument("--patients", type=int, default=279, help="patients; 0 resamples images (default 279)")
    parser.add_argument("--resamples", type=int, default=2_000, help="bootstrap resamples (default 2000)")
    parser.add_argument("--naive", type=int, default=0, help="resamples of the straightforward way to time (default 0)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulated predictions (default 0)")
    return parser.parse_args()


def draw_data(
    n_images: int, n_patients: int, *, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Labels (28 % malignant), probabilities and patients of unequal size, each with a shift of its own."""
    rng = np.random.default_rng(seed)
    n_groups = n_patients or n_images
    sizes = rng.gamma(2.0, size=n_groups)
    patients = np.sort(rng.choice(n_groups, size=n_images, p=sizes / sizes.sum()))
    labels = (rng.random(n_images) < 0.284).astype(np.int64)
    logits = 2.0 * labels - 1.5 + 0.7 * rng.normal(size=n_groups)[patients] + rng.normal(size=n_images)
    return labels, probability(logits), patients


def other_figures() -> list[str]:
    return [name for name in metrics.FIGURES if name not in ("auroc", "auprc")]


def resample_rows(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], patients: NDArray[np.int64], *, resamples: int
) -> None:
    """Every figure by copying the rows of each drawn patient."""
    rows_of = np.split(np.argsort(patients, kind="stable"), np.cumsum(np.bincount(patients))[:-1])
    for resample in range(resamples):
        drawn = draw_units(len(rows_of), resample=resample, seed=0)
        rows = np.concatenate([rows_of[unit] for unit in drawn])
        truth, scores = labels[rows], probabilities[rows]
        table = metrics.confusion(truth, metrics.calls(scores, THRESHOLD))
        for at_threshold in metrics.THRESHOLD_FIGURES.values():
            at_threshold(table)
        for figure in metrics.PROBABILITY_FIGURES.values():
            figure(truth, scores)


def seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def report(stage: str, took: float, predictions: int) -> None:
    print(f"{stage:<44}{took:>9.2f} s   {predictions / took / 1e6:>8.0f} million predictions/s")


if __name__ == "__main__":
    main()
