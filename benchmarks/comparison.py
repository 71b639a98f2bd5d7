"""How often `clearmargin compare` finds a difference where there is none, and where there is one.

    python benchmarks/comparison.py
    python benchmarks/comparison.py --simulations 1000 --patients 20 100

Prints a Markdown table. Two models see the same patients; what makes a patient hard is partly common to both
and partly each model's own. Without a gain the two are exchangeable, so that every claim is false. `corrected`
is the share of comparisons in which any headline figure is called different; `auroc` and `sensitivity` are by
their own p, not corrected; `naive` takes each image for a person of its own.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import pandas as pd
from scipy import stats

from clearmargin.decision import probability
from clearmargin.evaluation.comparison import compare_models
from clearmargin.evaluation.foreign import Predictions
from clearmargin.evaluation.significance import delong_difference, mcnemar

COLUMNS = ("corrected", "auroc", "sensitivity", "clustered McNemar", "naive DeLong", "naive McNemar")


def main() -> None:
    arguments = read_arguments()
    print("| patients | images each | gain | " + " | ".join(COLUMNS) + " |")
    print("|---" * (3 + len(COLUMNS)) + "|")
    for n_patients in arguments.patients:
        for images_each in arguments.images:
            for gain in arguments.gain:
                rates = simulate(n_patients, images_each, gain, arguments)
                cells = " | ".join(f"{rates[name]:.1%}" for name in COLUMNS)
                print(f"| {n_patients} | {images_each} | {gain:g} | {cells} |", flush=True)
    error = math.sqrt(0.05 * 0.95 / arguments.simulations)
    print(f"\n{arguments.simulations:,} simulations a row; the standard error of 5 % is {error:.1%}.")


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=400, help="comparisons in each row (default 400)")
    parser.add_argument("--patients", type=int, nargs="+", default=[10, 20, 50], help="(default 10 20 50)")
    parser.add_argument("--images", type=int, nargs="+", default=[1, 12], help="of each patient (default 1 12)")
    parser.add_argument("--gain", type=float, nargs="+", default=[0.0, 1.0], help="of B, in logits (default 0 1)")
    parser.add_argument("--resamples", type=int, default=100, help="behind each figure (default 100)")
    return parser.parse_args()


def simulate(n_patients: int, images_each: int, gain: float, arguments: argparse.Namespace) -> dict[str, float]:
    found = dict.fromkeys(COLUMNS, 0)
    for seed in range(arguments.simulations):
        models = draw_models(seed, n_patients=n_patients, images_each=images_each, gain=gain)
        table = compare_models(models, resamples=arguments.resamples, seed=seed).set_index("figure")
        found["corrected"] += bool((table["p_corrected"] < 0.05).any())
        for figure in ("auroc", "sensitivity"):
            found[figure] += bool(table.loc[figure, "p"] < 0.05)
        found["clustered McNemar"] += bool(table.loc["sensitivity", "p_mcnemar"] < 0.05)
        labels = models[0].table["label"].to_numpy()
        shares = np.stack([model.table["probability"] for model in models])
        naive = delong_difference(labels, shares)
        found["naive DeLong"] += naive is not None and naive[2] < 0.05
        called = shares[:, labels == 1] >= 0.5
        found["naive McNemar"] += mcnemar(called[0], called[1]) < 0.05
    return {name: count / arguments.simulations for name, count in found.items()}


def draw_models(seed: int, *, n_patients: int, images_each: int, gain: float) -> list[Predictions]:
    """Two models with a shift and a skill of their own for each patient; B has `gain` more on every image."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n_patients), images_each)
    mean, size = 1 / 3, 4.5
    of_patient = stats.beta(mean * size, (1 - mean) * size).rvs(n_patients, random_state=rng)
    labels = (rng.random(len(patients)) < of_patient[patients]).astype(np.int64)
    labels[0], labels[-1] = 0, 1
    side = 2 * labels - 1
    shared = side + 0.7 * rng.normal(size=n_patients)[patients] + 0.7 * rng.normal(size=len(patients))
    models = []
    for name, better in (("A", 0.0), ("B", gain)):
        shift, skill = 0.7 * rng.normal(size=(2, n_patients))
        logits = shared + (better + skill[patients]) * side + shift[patients] + 0.7 * rng.normal(size=len(patients))
        table = pd.DataFrame(
            {
                "path": [f"{number:05}.png" for number in range(len(patients))],
                "patient_id": pd.array([f"{patient:04}" for patient in patients], dtype="str"),
                "split": "test",
                "label": labels,
                "probability": probability(logits),
            }
        )
        models.append(Predictions(name, table, 0.5))
    return models


if __name__ == "__main__":
    main()
