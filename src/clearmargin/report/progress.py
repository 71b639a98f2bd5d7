"""How a running job is worded, in a terminal, in a log and in a notebook."""

from __future__ import annotations

from collections.abc import Mapping

STAGES = {
    "download": "Downloading",
    "verify": "Verifying",
    "unpack": "Unpacking",
    "draw": "Drawing phantom slides",
    "audit": "Auditing",
    "compare": "Looking for copies",
    "confounding": "Testing what is trivial",
    "pack": "Packing",
    "features": "Computing features",
    "sweep": "Sweeping",
    "train": "Training",
    "read": "Reading the Keras file",
    "export": "Exporting to ONNX",
    "predict": "Predicting",
    "evaluate": "Evaluating",
    "compare models": "Comparing models",
    "gate": "Learning what to refuse",
    "report": "Writing the report",
}
"""The stages that a listener hears of, as a reader is told."""


def describe_epoch(row: Mapping[str, float]) -> str:
    """One line for one epoch."""
    return (
        f"epoch {row['epoch']:>3.0f}  loss {row['train_loss']:.3f}  accuracy {row['train_accuracy']:.3f}  "
        f"validation: loss {row['validation_loss']:.3f}  accuracy {row['validation_accuracy']:.3f}  "
        f"AUROC {row['validation_auroc']:.3f}  ({row['images_per_second']:,.0f} images/s)"
    )
