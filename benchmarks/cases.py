"""How often the training images that a model finds most like a new one have its label, by several distances.

    python benchmarks/cases.py RUN

Held-out patients are those of validation and test. `same label` is the mean over patients and classes. The decision
that the neighbours are compared with is the model's own, of each image by itself: `apart` is how often most of them say
otherwise, `right` how often they are then right. The cost is that of the processor, not of the clock.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from clearmargin.bundle.cases import Case, Cases, project
from clearmargin.decision import probability
from clearmargin.predict.predictor import load_bundle
from clearmargin.predict.session import Session
from clearmargin.predict.similar import SimilarCases
from clearmargin.training.cases import choose_cases, fit_projection, make_pictures
from clearmargin.types import LABEL_NAMES

NEIGHBOURS = 5
Floats = NDArray[np.float64]


def spaces(cases: Floats, others: Floats) -> dict[str, tuple[Floats, Floats]]:
    """Cases and other images by the name of what is compared; Euclidean, and on the unit sphere for the cosine."""
    mean = cases.mean(axis=0)
    cases_from_mean, others_from_mean = cases - mean, others - mean
    values, axes = np.linalg.eigh(cases_from_mean.T @ cases_from_mean / len(cases))
    order = np.argsort(values)[::-1][:64]
    values, axes = np.maximum(values[order], 1e-12), axes[:, order]
    found = {"as they are": (cases, others), "from their mean": (cases_from_mean, others_from_mean)}
    for name, power in (("64 components", 0), ("64 components, half whitened", 0.25), ("64 components, whitened", 0.5)):
        found[name] = (cases_from_mean @ (axes * values**-power), others_from_mean @ (axes * values**-power))
    named = {f"Euclidean, {name}": pair for name, pair in found.items()}
    for name, pair in found.items():
        one, other = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in pair)
        named[f"cosine, {name}"] = (one, other)
    return named


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--most", type=int, default=2000)
    options = parser.parse_args()
    predictor = load_bundle(options.run)
    model = predictor.bundle.model
    frame = pd.read_parquet(options.run / "manifest.parquet")
    split = pd.read_csv(options.run / "split.csv").set_index("path")["split"][frame["path"]].to_numpy(dtype=str)
    labels, patients = frame["label"].to_numpy(dtype=np.int8), frame["patient_id"].to_numpy(dtype=str)
    chosen = choose_cases(labels, patients, np.flatnonzero(split == "train"), options.most)
    held_out = np.flatnonzero(split != "train")
    images = np.stack(
        [model.preprocessing.read(path) for path in frame["path"].iloc[np.concatenate([chosen, held_out])]]
    )
    session = Session(predictor.bundle.read("model.onnx"))
    logits, features = session.describe(images)
    cases, others = features[: len(chosen)], features[len(chosen) :]
    truth, person = labels[held_out], patients[held_out]
    own = probability(logits[len(chosen) :], model.calibrated_by) >= model.decision_point.threshold
    print(
        f"{len(chosen):,} cases of {len(set(patients[chosen])):,} patients; {len(truth):,} images of {len(set(person))}"
    )
    print(f"the model itself: balanced accuracy {balanced_accuracy_score(truth, own):.3f}\n")
    columns = (
        "distance",
        "same label, of 5",
        "balanced accuracy of the majority",
        "AUROC of the share",
        "apart",
        "right",
    )
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name, (left, right) in spaces(cases.astype(np.float64), others.astype(np.float64)).items():
        squares = (left**2).sum(axis=1) - 2 * right @ left.T
        share = labels[chosen][np.argsort(squares, axis=1)[:, :NEIGHBOURS]].mean(axis=1)
        same = np.where(truth == 1, share, 1 - share)
        groups = [same[(person == who) & (truth == label)].mean() for who in sorted(set(person)) for label in (0, 1)]
        figures = (np.nanmean(groups), balanced_accuracy_score(truth, share > 0.5), roc_auc_score(truth, share))
        apart = (share > 0.5) != own
        figures += apart.mean(), np.mean((share > 0.5) == truth, where=apart)
        print(f"| {name} | {' | '.join(f'{figure:.3f}' for figure in figures)} |")
    mean, projection = fit_projection(cases)
    rows = tuple(
        Case(patient_id=patient, slide_id=None, path=None, label=LABEL_NAMES[label])
        for patient, label in zip(patients[chosen], labels[chosen], strict=True)
    )
    kept = Cases(rows, project(cases, mean, projection), make_pictures(images[: len(chosen)]), mean, projection)
    print(f"\nfiles: {', '.join(f'{name} {len(content) / 1e6:.1f} MB' for name, content in kept.files().items())}")
    search, batch = SimilarCases(kept, pseudonymous=False), images[:256]
    seconds = []
    for job in (
        lambda: session.logits(batch),
        lambda: search.find(others[:256], [None] * len(others[:256]), NEIGHBOURS),
    ):
        started = [time.process_time()]
        for _ in range(5):
            job()
            started.append(time.process_time())
        seconds.append(np.diff(started).min())
    print(f"256 images: the network {1e3 * seconds[0]:.0f} ms, the search {1e3 * seconds[1]:.0f} ms")


if __name__ == "__main__":
    main()
