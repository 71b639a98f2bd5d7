"""The model card (Mitchell et al. 2019), written from model.json so that it cannot say anything else."""

from __future__ import annotations

from typing import Any

from clearmargin.bundle.schema import ModelFile

_FIGURES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "brier": "Brier score",
    "ece": "ECE",
}


_CONTENT = {
    None: "images like those it was trained on, whose kind is not recorded",
    "histology": "histology patches",
    "mammogram": "whole mammograms",
    "ultrasound": "whole ultrasound images",
    "lesion": "crops around one lesion each, not whole images",
}


def model_card(model: ModelFile) -> str:
    """The card as Markdown."""
    spec, lineage, point = model.preprocessing, model.lineage, model.decision_point
    stamp = (
        f"\n> **{lineage.stamp}**: patients may be on both sides of the split; expect less on new patients.\n"
        if lineage.stamp
        else ""
    )
    size = f"{spec.width}×{spec.height} pixels, {'RGB' if spec.channels == 3 else 'grey'}, 8 bit"
    libraries = ", ".join(f"{name} {version}" for name, version in sorted(lineage.libraries.items()))
    return f"""# Model card

{model.intended_use}
{stamp}
## The model

- Architecture: `{model.architecture.name}`, {model.architecture.parameters:,} parameters
- Recipe: `{lineage.recipe}`, seed {lineage.seed}
- Input: {size}; others are fitted by `{spec.fit}` (padding {spec.padding}, interpolation {spec.interpolation}),
  and 16-bit values are scaled by the range of their container
- Made for: {_CONTENT[model.content]}
- Output: the logit of *malignant*; probability = sigmoid(logit / {model.temperature:.4f})
- Decision: malignant when the probability is at or above {point.threshold:.4f}
- Operating point: `{point.name}`, {point.rule}

## The evidence

Split by **{lineage.split}**. Figures of the test part; 95 % intervals resample {_resampled(lineage.metrics)}:

{_figures(lineage.metrics)}

## Limits

- The figures hold for patients, scanners and stains like those of the training data, and for images prepared alike.
- The model does not say "I cannot tell" and refuses no image for its look: check what goes in.
- A probability of one image says nothing about the whole breast.

## Lineage

- Made by clearmargin {lineage.clearmargin} on {lineage.created}, precision {lineage.precision}
- Data sha256 `{lineage.data_sha256}`
- Split sha256 `{lineage.split_sha256}`
- Libraries: {libraries}
"""


def _figures(metrics: dict[str, Any]) -> str:
    lines = [
        f"{metrics['n_images']:,} images of {_patients(metrics['n_patients'])}.",
        "",
        "| figure | value | 95 % interval |",
    ]
    lines.append("|---|---|---|")
    for key, name in _FIGURES.items():
        figure = metrics[key]
        if figure["value"] is None:
            lines.append(f"| {name} | not defined: {figure['reason']} | |")
        else:
            interval = (
                f"{figure['ci'][0]:.3f} to {figure['ci'][1]:.3f}" if figure["ci"] else f"none: {figure['reason']}"
            )
            lines.append(f"| {name} | {figure['value']:.3f} | {interval} |")
    return "\n".join(lines)


def _resampled(metrics: dict[str, Any]) -> str:
    return "images, because no patient is known" if metrics["n_patients"] is None else "patients"


def _patients(count: int | None) -> str:
    return "an unknown number of patients" if count is None else f"{count:,} patients"
