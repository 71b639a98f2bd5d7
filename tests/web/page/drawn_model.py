"""Bundles of small networks that learned to tell drawn patches apart, in a few seconds and without a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tests.bundle.small_bundle import carry, write_network

from clearmargin.bundle.cases import Case, Cases, project
from clearmargin.data.phantom import draw_patch
from clearmargin.decision import Abstention
from clearmargin.images.preprocess import Preprocessing
from clearmargin.models import build_model
from clearmargin.models.contract import Classifier
from clearmargin.training.cases import fit_projection
from clearmargin.types import LABEL_NAMES

PX = 32
SPEC = Preprocessing(width=PX, height=PX)
_PATIENTS = 40
_STEPS = 40


@dataclass(frozen=True)
class Drawn:
    """A bundle, and images on disk: some that it calls benign, some malignant, some that it cannot tell."""

    bundle: Path
    benign: list[Path]
    malignant: list[Path]
    abstain: list[Path]


def write_drawn(root: Path, name: str, *, seed: int, with_cases: bool) -> Drawn:
    """A bundle called `name`, and patches of patients that it was not trained on."""
    pixels, labels = _patches(range(_PATIENTS))
    model = _trained(pixels, labels, seed)
    new, _ = _patches(range(1000, 1012))
    chances = np.sort(_chances(model, new))
    middle = len(chances) // 2
    # Between two images each, for the network of the bundle differs from this one in the last digits.
    low, high = (float(np.mean(chances[middle + at : middle + at + 2])) for at in (-3, 1))
    plain = root / "plain" / name
    withheld = Abstention(coverage=0.9, low=low, high=high, n_units=_PATIENTS, unit="patient")
    write_network(
        plain, model, name="cnn_3conv", spec=SPEC,
        temperature=1.0, threshold=(low + high) / 2, conformal=withheld, content="histology",
    )  # fmt: skip
    bundle = carry(plain, root / name, _cases(model, pixels[:24], labels[:24])) if with_cases else plain
    found: dict[str, list[Path]] = {"benign": [], "malignant": [], "abstain": []}
    for number, (patch, chance) in enumerate(zip(new, _chances(model, new), strict=True)):
        path = root / f"patch-{number:02}.png"
        Image.fromarray(patch).save(path)
        found["benign" if chance < low else "malignant" if chance > high else "abstain"].append(path)
    return Drawn(bundle, **found)


def _patches(seeds: range) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    pairs = [(draw_patch(label, seed, PX), label) for seed in seeds for label in (0, 1)]
    return np.stack([patch for patch, _ in pairs]), np.array([label for _, label in pairs], dtype=np.float32)


def _input(pixels: NDArray[np.uint8]) -> torch.Tensor:
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - SPEC.mean) / SPEC.std


def _trained(pixels: NDArray[np.uint8], labels: NDArray[np.float32], seed: int) -> Classifier:
    torch.manual_seed(seed)
    model = build_model("cnn_3conv", SPEC.shape, seed=seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    x, y = _input(pixels), torch.from_numpy(labels)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(model(x), y).backward()
        optimizer.step()
    return model.eval()


def _chances(model: Classifier, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    with torch.no_grad():
        return torch.sigmoid(model(_input(pixels))).numpy().astype(np.float64)


def _cases(model: Classifier, pixels: NDArray[np.uint8], labels: NDArray[np.float32]) -> Cases:
    with torch.no_grad():
        features = model.forward_features(_input(pixels)).mean(dim=(2, 3)).numpy()
    mean, projection = fit_projection(features)
    rows = tuple(
        Case(patient_id=f"P-{number // 2:03}", slide_id=None, path=None, label=LABEL_NAMES[int(label)])
        for number, label in enumerate(labels)
    )
    return Cases(rows, project(features, mean, projection), pixels, mean, projection)
