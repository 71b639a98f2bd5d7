"""Small bundles for tests: one with invented files, and one with a network that works."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from torch import nn

from clearmargin.bundle.cases import Case, Cases, project
from clearmargin.bundle.export import export_onnx
from clearmargin.bundle.read import FIELD, REQUIRED, SUMS, read_bundle
from clearmargin.bundle.schema import Architecture, KeptCases, Lineage, ModelFile
from clearmargin.bundle.write import Network, write_bundle
from clearmargin.decision import Abstention, Level, Platt, Pooling
from clearmargin.images.preprocess import Preprocessing
from clearmargin.models import build_model
from clearmargin.models.contract import Classifier, count_parameters
from clearmargin.reference import STEPS, Distribution, Reference
from clearmargin.training.cases import fit_projection
from clearmargin.types import LABEL_NAMES, OperatingPoint

_NAMES = (
    "auroc", "auprc", "balanced_accuracy", "accuracy", "sensitivity", "specificity", "ppv", "npv", "f1", "brier", "ece",
)  # fmt: skip


def invented_metrics() -> dict[str, Any]:
    """Figures that can all be told apart: auroc 0.501 (0.401 to 0.601), auprc 0.502 …"""
    figures = {
        name: {"value": 0.501 + number / 1000, "ci": [0.401 + number / 1000, 0.601 + number / 1000]}
        for number, name in enumerate(_NAMES)
    }
    figures["ppv"] = {"value": None, "ci": None, "reason": "no image was called malignant"}
    figures["ece"] = {"value": 0.511, "ci": None, "reason": "fewer than 2 patients"}
    return {"n_images": 1234, "n_patients": 17, "loss": 0.3, "confusion": [[1, 2], [3, 4]], **figures}


def model_file(
    spec: Preprocessing | None = None,
    *,
    architecture: str = "cbis_ddsm",
    parameters: int = 85057,
    ensemble: int = 1,
    temperature: float = 1.2345,
    threshold: float = 0.4321,
    stamp: str | None = None,
    **chosen: Any,
) -> ModelFile:
    """A model.json of invented but consistent contents; `chosen` are fields such as those of `every_choice`."""
    point = OperatingPoint("balanced", "largest balanced accuracy", threshold, achieved={"sensitivity": 0.8})
    return ModelFile(
        architecture=Architecture(name=architecture, parameters=parameters, ensemble=ensemble),
        preprocessing=spec or Preprocessing(width=16, height=16, mean=0.5, std=0.25),
        temperature=temperature,
        operating_points={"balanced": point},
        operating_point="balanced",
        lineage=Lineage(
            clearmargin="0.1.0",
            created="2026-01-02T03:04:05+00:00",
            recipe="cbis_ddsm",
            seed=7,
            split="image" if stamp else "patient",
            stamp=stamp,
            data_sha256="d" * 64,
            split_sha256="e" * 64,
            precision="32-true",
            metrics=invented_metrics(),
            libraries={"torch": "2.13", "numpy": "2.4"},
        ),
        **chosen,
    )


def every_choice() -> dict[str, Any]:
    """Fields of model.json for all that can be chosen on validation besides the threshold."""
    quantiles = tuple(0.1 + 0.8 * step / (STEPS - 1) for step in range(STEPS))
    spread = Distribution(
        quantiles=quantiles, centre=0.1, error=0.02, between=0.5, within=0.9, n_images=800, n_units=40
    )
    learned = Pooling(method="learned", intercept=-0.3, mean_weight=0.7, top_weight=0.4)
    return {
        "temperature": 1.0,
        "calibration": Platt(slope=0.8, intercept=-0.25),
        "conformal": Abstention(coverage=0.9, low=0.4123, high=0.5231, n_units=40, unit="patient"),
        "levels": {
            "slide": Level(pooling=learned, calibration=Platt(slope=1.5, intercept=0.2), threshold=0.37, reason="best"),
            "patient": Level(pooling=Pooling(method="top_k", k=3), threshold=0.61),
        },
        "reference": Reference(unit="patient", images={"brightness": spread}, score=spread),
    }


def write_invented(folder: Path, **changes: Any) -> Path:
    """A bundle whose weights and network are a few bytes; good enough for reading and verifying."""
    generator = np.random.default_rng(0)
    write_bundle(folder, model_file(**changes), Network({"weight": torch.arange(20.0)}, generator.bytes(300)))
    return folder


def lived_model(name: str, shape: tuple[int, int, int]) -> Classifier:
    """A model whose weights and running statistics have left their start, as after training."""
    model = build_model(name, shape, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.03)
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                assert layer.running_mean is not None
                assert layer.running_var is not None
                layer.running_mean.uniform_(-0.2, 0.2, generator=generator)
                layer.running_var.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def write_working(folder: Path, *, name: str, spec: Preprocessing, **changes: Any) -> Classifier:
    """A bundle that predicts; gives the torch model inside."""
    return write_network(folder, lived_model(name, spec.shape), name=name, spec=spec, **changes)


def write_network(folder: Path, model: Classifier, *, name: str, spec: Preprocessing, **changes: Any) -> Classifier:
    """A bundle of this model."""
    onnx = export_onnx(model, spec, pictures(spec, 2))
    contents = model_file(spec, architecture=name, parameters=count_parameters(model), **changes)
    write_bundle(folder, contents, Network(model.state_dict(), onnx))
    return model


def pictures(spec: Preprocessing, number: int) -> NDArray[np.uint8]:
    """(number, H, W, C) smooth coloured images, the first black and the second white."""
    height, width, channels = spec.shape
    generator = np.random.default_rng(3)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([
        np.sin(x[:, :, None] / generator.uniform(2, 9, channels) + y[:, :, None] / generator.uniform(2, 9, channels))
        for _ in range(number)
    ])  # fmt: skip
    images = (127 + 90 * waves + generator.uniform(-30, 30, (number, 1, 1, channels))).clip(0, 255).astype(np.uint8)
    images[0] = 0
    images[1:2] = 255
    return images


def sign(folder: Path) -> None:
    """Writes SHA256SUMS anew, as whoever changes a bundle on purpose can."""
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in REQUIRED]
    (folder / SUMS).write_text("".join(lines))


def drawn_cases(number: int = 12, *, features: int = 5, patients: int = 3) -> Cases:
    """Invented cases of some patients, of either class in turn."""
    generator = np.random.default_rng(4)
    mean, projection = fit_projection(generator.normal(size=(50, features)).astype(np.float32))
    rows = tuple(
        Case(patient_id=f"P-{row % patients}", slide_id=None, path=f"{row}.png", label=LABEL_NAMES[row % 2])
        for row in range(number)
    )
    described = project(generator.normal(size=(number, features)).astype(np.float32), mean, projection)
    pictures = generator.integers(0, 256, (number, 16, 20, 3), dtype=np.uint8)
    return Cases(rows, described, pictures, mean, projection)


def carry(source: Path, target: Path, cases: Cases, *, pseudonymous: bool = False) -> Path:
    """The bundle at `source`, written anew as one that carries cases."""
    bundle = read_bundle(source)
    kept = KeptCases(images=len(cases), patients=cases.n_patients, pseudonymous=pseudonymous)
    network, field = (
        Network(load(bundle.read(weights)), bundle.read(onnx)) if onnx in bundle.sums else None
        for weights, onnx in (("weights.safetensors", "model.onnx"), tuple(reversed(FIELD)))
    )
    assert network is not None
    write_bundle(target, bundle.model.model_copy(update={"cases": kept}), network, field=field, cases=cases)
    return target
