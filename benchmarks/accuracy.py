"""Accuracy on patients never seen, model beside model on the same patients, with paired intervals over patients.

    python benchmarks/accuracy.py IDC --out OUT
    python benchmarks/accuracy.py IDC --out OUT --keras keras.csv --recipes default cnn_50 --epochs 10

Each recipe is cross-validated by patient on the same folds (`clearmargin train IDC --folds 4 --epochs N --recipe
NAME`, no more epochs than its own), so that each image is judged by a network that has not seen its patient, at a
threshold chosen on the other folds. `default` counts twice, patch by patch and in the context of the slide. The CSV
of a Keras model (`keras_model.py`) is judged at 0.5 as its authors do, and at the best threshold on these very
images, which flatters it. Runs that are there already are taken as they are.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve

import clearmargin
from clearmargin.config import load_recipe
from clearmargin.evaluation.comparison import compare_models
from clearmargin.evaluation.foreign import Predictions

RECIPES = ("default", "larger_model", "cbis_ddsm", "cnn_50", "cnn_3conv", "cancernet")
FIGURES = ("auroc", "balanced_accuracy")


def main() -> None:
    arguments = read_arguments()
    models: list[Predictions] = []
    for recipe in arguments.recipes:
        models += tested(recipe, arguments)
    if arguments.keras is not None:
        models += keras_model(arguments.keras, models[0].table)
    print("\n| model | AUROC | balanced accuracy |\n|---|---|---|")
    for model in models:
        print(f"| {model.name} | {' | '.join(figures_alone(model))} |")
    first = [model for model in models if model.name.startswith("default")]
    print("\n| difference | AUROC | balanced accuracy |\n|---|---|---|")
    for better in first:
        for other in models:
            if other.name != better.name and not (other in first and better is first[0]):
                cells = [difference(better, other, figure) for figure in FIGURES]
                print(f"| {better.name} − {other.name} | {' | '.join(cells)} |")


def tested(recipe: str, arguments: argparse.Namespace) -> list[Predictions]:
    """The out-of-fold predictions of a recipe, trained first if need be; of `default` also patch by patch."""
    own = load_recipe(recipe).train.epochs
    folder = arguments.out / f"cv_{recipe}"
    epochs = own if recipe == "default" else min(own, arguments.epochs)
    settings = {"evaluate.coverage": 0.0, "evaluate.resamples": 200, "evaluate.subgroups": []}
    run = clearmargin.train(
        arguments.data, folder, recipe=recipe, folds=arguments.folds, epochs=epochs, settings=settings, resume=True
    )
    table = pd.read_csv(run.folder / "predictions.csv", dtype={"patient_id": str})
    name = recipe if epochs == own else f"{recipe} ({epochs} of {own} epochs)"
    if "probability_alone" not in table:
        return [model_of(name, table, table["probability"], table["decision"])]
    alone = model_of(f"{name}, patch alone", table, table["probability_alone"], table["decision_alone"])
    return [alone, model_of(f"{name}, in context", table, table["probability"], table["decision"])]


def model_of(name: str, table: pd.DataFrame, probabilities: pd.Series, decisions: pd.Series) -> Predictions:
    """The predictions with a column `called`: 1 where the model says malignant."""
    columns = table[["path", "patient_id", "label"]].assign(
        split="test", probability=probabilities, called=(decisions == "malignant").astype(float)
    )
    return Predictions(name, columns, 0.5, cross_validated=True)


def keras_model(path: Path, like: pd.DataFrame) -> list[Predictions]:
    """The CSV at 0.5, and at the threshold that is best on these images."""
    table = pd.read_csv(path, dtype={"patient_id": str})
    table = table[table["path"].isin(like["path"])]
    false, true, thresholds = roc_curve(table["label"], table["probability"])
    best = thresholds[np.argmax(true - false)]
    return [
        model_of(f"Keras model {words}", table, table["probability"], decided(table["probability"], threshold))
        for words, threshold in (("at 0.5", 0.5), ("at its best threshold", best))
    ]


def decided(probabilities: pd.Series, threshold: float) -> pd.Series:
    return pd.Series(np.where(probabilities >= threshold, "malignant", "benign"), index=probabilities.index)


def figures_alone(model: Predictions) -> list[str]:
    """Value and interval of each figure; the interval is that of the difference from a model that knows nothing."""
    cells = []
    for figure in FIGURES:
        nothing = replace(model, name="nothing", table=model.table.assign(probability=0.0, called=0.0))
        row = compare(model, nothing, figure)
        # Both figures of a model that knows nothing are one half on any patients, without any spread.
        cells.append(f"{row['value_a']:.3f} ({0.5 + row['low']:.3f}–{0.5 + row['high']:.3f})")
    return cells


def difference(a: Predictions, b: Predictions, figure: str) -> str:
    row = compare(a, b, figure)
    return f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"


def compare(a: Predictions, b: Predictions, figure: str) -> pd.Series:
    """The row of one figure; at a threshold, of the decisions themselves, whichever fold's threshold made them."""
    if figure == "balanced_accuracy":
        a, b = (replace(model, table=model.table.assign(probability=model.table["called"])) for model in (a, b))
    table = compare_models([a, b], resamples=2000, seed=0)
    return table[table["figure"] == figure].iloc[0]


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a folder with patients")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--epochs", type=int, default=10, help="of the other recipes, at most")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--keras", type=Path, help="CSV with path, patient_id, label, probability")
    return parser.parse_args()


if __name__ == "__main__":
    main()
