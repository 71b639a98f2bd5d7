"""Whether explanations tell the truth about a network: the tables of docs/explain.md.

    python benchmarks/explain.py RUN
    python benchmarks/explain.py RUN --phantom PHANTOM_RUN --images 12

RUN is a finished run; its images are those of validation and test, which must still be where the run found them.
PHANTOM_RUN is one on phantom data of the settings named in PHANTOM. Intervals are Student's over patients.

    randomised   rank correlation of a map with that of the network whose last layers have shuffled weights
    deletion     mean logit while pixels are blurred in the map's order, minus that with another image's map: below 0
    insertion    mean logit while pixels come back in that order, minus the same with another image's map: above 0
    glow         mean displayed strength of benign and of malignant images, in units of full colour
    pointing     how often the strongest place lies in the lesion, in windows that contain the border of one
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from clearmargin.api import load_explainer
from clearmargin.data.phantom import PhantomSettings, draw_slide
from clearmargin.explanation.checks import (
    layers_from_the_head,
    perturbation_scores,
    points_inside,
    randomised,
    rank_correlation,
)
from clearmargin.explanation.explainer import Explainer
from clearmargin.explanation.methods import METHODS
from clearmargin.explanation.scale import explain_packed
from clearmargin.images.preprocess import Preprocessing
from clearmargin.models.contract import Classifier

PHANTOM = PhantomSettings(patients=50, patches_per_patient=80)
_UNSEEN = range(30, 50)
"""Patients of PHANTOM that the phantom run was not trained on: it has the first 30."""
_SEEDS = 3
"""Networks that are shuffled in each way."""
_SHARES = (0.15, 0.5)
"""Of a window that is lesion."""


def main() -> None:
    arguments = read_arguments()
    explainer = load_explainer(arguments.run)
    table = held_out(arguments.run, arguments.images, decided=explainer)
    spec = explainer.predictor.bundle.model.preprocessing
    images = np.stack([spec.read(path) for path in table["path"]])
    malignant = (table["label"] == 1).to_numpy()
    patients = table["patient_id"].to_numpy()
    print(f"{len(table)} images of {len(set(patients))} held-out patients, {malignant.sum()} malignant.\n")
    maps, seconds = {}, {}
    for method in METHODS:
        started = time.perf_counter()
        maps[method] = explain(explainer, images, method)
        seconds[method] = (time.perf_counter() - started) / len(images)
    print_randomised(explainer, images[malignant][: arguments.randomised], maps, malignant)
    print_perturbed(
        explainer, images[malignant], {name: each[malignant] for name, each in maps.items()}, patients[malignant]
    )
    print_glow(explainer, maps, malignant, patients)
    if arguments.phantom is not None:
        print_phantom(load_explainer(arguments.phantom), arguments.windows)
    print("\n| method | s an image |\n|---|---|")
    for method, each in seconds.items():
        print(f"| {method} | {each:.4f} |")


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--phantom", type=Path, help="a run on phantom data")
    parser.add_argument("--images", type=int, default=12, help="of each class of each patient (default 12)")
    parser.add_argument(
        "--randomised", type=int, default=12, help="images to explain with shuffled weights (default 12)"
    )
    parser.add_argument("--windows", type=int, default=8, help="of each phantom patient (default 8)")
    return parser.parse_args()


def held_out(run: Path, each: int, *, decided: Explainer) -> pd.DataFrame:
    """Evenly spaced images of either class of each patient, of those the network calls by their label."""
    table = pd.read_csv(run / "predictions.csv", dtype={"patient_id": str})
    point = decided.predictor.bundle.model.decision_point
    alone = "probability_alone" if "probability_alone" in table else "probability"
    called = (table[alone].fillna(table["probability"]) >= point.threshold).astype(int)
    table = table[table["split"].isin(["validation", "test"]) & (called == table["label"])]
    parts = []
    for _, part in table.groupby(["patient_id", "label"], sort=True):
        parts.append(part.iloc[np.unique(np.linspace(0, len(part) - 1, min(each, len(part))).astype(int))])
    return pd.concat(parts, ignore_index=True)


def explain(explainer: Explainer, images: NDArray[np.uint8], method: str) -> NDArray[np.float32]:
    model = explainer.predictor.bundle.model
    return explain_packed(explainer.model, model.preprocessing, images, method=method)


def print_randomised(
    explainer: Explainer, images: NDArray[np.uint8], maps: dict[str, NDArray[np.float32]], malignant: NDArray[np.bool_]
) -> None:
    file = explainer.predictor.bundle.model
    layers = len(layers_from_the_head(explainer.model))
    depths = sorted({1, layers // 4, layers // 2, layers})
    print("| method | " + " | ".join(f"last {depth} of {layers} layers" for depth in depths) + " |")
    print("|---" * (len(depths) + 1) + "|")
    found: dict[str, list[str]] = {name: [] for name in METHODS}
    for depth in depths:
        others = [randomised(explainer.model, depth, seed=seed) for seed in range(_SEEDS)]
        for name in METHODS:
            own = maps[name][malignant][: len(images)]
            pairs = [
                (a, b)
                for other in others
                for a, b in zip(own, explain_either(other, file.preprocessing, images, name), strict=True)
            ]
            found[name].append(f"{np.mean([rank_correlation(a, b) for a, b in pairs]):.2f}")
    for name, cells in found.items():
        print(f"| {name} | " + " | ".join(cells) + " |")


def explain_either(
    model: Classifier, preprocessing: Preprocessing, images: NDArray[np.uint8], method: str
) -> NDArray[np.float32]:
    """The maps; where one is empty, since a shuffled network may find all images benign, what speaks for benign."""
    maps = explain_packed(model, preprocessing, images, method=method)
    empty = np.ptp(maps, axis=(1, 2)) == 0
    if empty.any():
        maps[empty] = explain_packed(Turned(model), preprocessing, images[empty], method=method)
    return maps


class Turned(Classifier):
    """The same network with benign as its malignant."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward_features(self, x: Tensor) -> Tensor:
        return self.model.forward_features(x)

    def forward_head(self, features: Tensor) -> Tensor:
        return -self.model.forward_head(features)


def print_perturbed(
    explainer: Explainer, images: NDArray[np.uint8], maps: dict[str, NDArray[np.float32]], patients: NDArray[np.object_]
) -> None:
    spec = explainer.predictor.bundle.model.preprocessing
    print("\n| method | deletion | insertion |\n|---|---|---|")
    shift = np.roll(np.arange(len(images)), len(images) // 2)  # the map of an image of another patient
    for name, each in maps.items():
        own = np.array(
            [
                perturbation_scores(explainer.model, spec, image, values)
                for image, values in zip(images, each, strict=True)
            ]
        )
        control = np.array(
            [
                perturbation_scores(explainer.model, spec, image, values)
                for image, values in zip(images, each[shift], strict=True)
            ]
        )
        deletion, insertion = (own - control).T
        print(f"| {name} | {over_patients(deletion, patients)} | {over_patients(insertion, patients)} |", flush=True)


def print_glow(
    explainer: Explainer,
    maps: dict[str, NDArray[np.float32]],
    malignant: NDArray[np.bool_],
    patients: NDArray[np.object_],
) -> None:
    print("\n| method | benign | malignant | difference |\n|---|---|---|---|")
    for name, each in maps.items():
        # Of signed maps only what is warm: cool says benign.
        strength = np.clip(each / explainer.scale(name).saturation, 0, 1).mean(axis=(1, 2))
        means = [
            [
                strength[(patients == who) & (malignant == of)].mean()
                for who in sorted(set(patients[malignant]) & set(patients[~malignant]))
            ]
            for of in (False, True)
        ]
        cells = [interval(part) for part in (*means, np.subtract(means[1], means[0]))]
        print(f"| {name} | " + " | ".join(cells) + " |")


def print_phantom(explainer: Explainer, windows: int) -> None:
    images, regions, patients = border_windows(explainer, windows)
    print(f"\nPhantom: {len(images)} windows of {len(set(patients))} patients.\n")
    print("| method | strongest place in the lesion | benign | malignant |\n|---|---|---|---|")
    middle = regions.shape[1] // 2
    print(f"| chance | {over_patients(regions.mean(axis=(1, 2)), patients)} | | |")
    print(f"| the middle | {over_patients(regions[:, middle, middle].astype(float), patients)} | | |")
    plain, labels = plain_patches(explainer)
    for name in METHODS:
        hits = [
            points_inside(values, region)
            for values, region in zip(explain(explainer, images, name), regions, strict=True)
        ]
        strength = np.clip(explain(explainer, plain, name) / explainer.scale(name).saturation, 0, 1).mean(axis=(1, 2))
        glow = " | ".join(f"{strength[labels == label].mean():.3f}" for label in (0, 1))
        print(f"| {name} | {over_patients(np.array(hits), patients)} | {glow} |", flush=True)


def border_windows(explainer: Explainer, each: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.int64]]:
    """Windows that are in part lesion, of patients that were not trained on; those that the network calls malignant."""
    spec, px = explainer.predictor.bundle.model.preprocessing, PHANTOM.patch_px
    rng = np.random.default_rng(0)
    images, regions, patients = [], [], []
    for patient in _UNSEEN:
        slide = draw_slide(patient, PHANTOM)
        height, width = slide.lesion_px.shape
        found = 0
        for _ in range(300):
            y, x = int(rng.integers(height - px)), int(rng.integers(width - px))
            region = slide.lesion_px[y : y + px, x : x + px]
            if not _SHARES[0] <= region.mean() <= _SHARES[1]:
                continue
            pixels = np.ascontiguousarray(slide.image[y : y + px, x : x + px])
            if explainer.predictor.predict_pixels(pixels).decision != "malignant":
                continue
            images.append(spec.apply(pixels))
            regions.append(region)
            patients.append(patient)
            found += 1
            if found == each:
                break
    return np.stack(images), np.stack(regions), np.array(patients)


def plain_patches(explainer: Explainer) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Patches of unseen phantom patients, wholly lesion or without any."""
    spec, px = explainer.predictor.bundle.model.preprocessing, PHANTOM.patch_px
    images, labels = [], []
    for patient in _UNSEEN:
        slide = draw_slide(patient, PHANTOM)
        cells = np.argwhere(slide.tissue)
        taken = {0: 0, 1: 0}
        for row, column in cells:
            part = (slice(row * px, row * px + px), slice(column * px, column * px + px))
            share = slide.lesion_px[part].mean()
            if share in (0.0, 1.0) and taken[int(share)] < 3 and slide.image[part].shape[:2] == (px, px):
                taken[int(share)] += 1
                images.append(spec.apply(np.ascontiguousarray(slide.image[part])))
                labels.append(int(share))
    return np.stack(images), np.array(labels)


def over_patients(values: NDArray[np.floating], patients: NDArray[np.generic]) -> str:
    return interval([float(values[patients == who].mean()) for who in np.unique(patients)])


def interval(means: Sequence[float]) -> str:
    """The mean over patients with its 95 % interval."""
    middle = float(np.mean(means))
    reach = stats.t.ppf(0.975, len(means) - 1) * np.std(means, ddof=1) / np.sqrt(len(means))
    return f"{middle:.3f} ({middle - reach:.3f} to {middle + reach:.3f})"


if __name__ == "__main__":
    main()
