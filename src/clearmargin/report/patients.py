"""What each patient's images add up to: shares, AUROC within the patient, images judged rightly.

A number over all images can hide a patient on whom the model fails; here every one has a row.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from clearmargin.evaluation.metrics import auroc
from clearmargin.types import MALIGNANT

FEW_IMAGES = 10
"""Below so many images of the rarer class (or of the only one) a patient's figure is drawn hollow."""


def patient_table(predictions: pd.DataFrame, threshold: float | pd.Series) -> pd.DataFrame:
    """One row a patient, the worst first; empty where no patient is known.

    Args:
        predictions: rows of one split, columns as in predictions.csv.
        threshold: at or above it an image counts as called malignant; or one for each row.

    Returns:
        `patient_id, n_images, true_share, called_share, correct_share, auroc, few`; shares in [0, 1],
        `auroc` NaN for a patient whose images all have one label.
    """
    rows = []
    judged = predictions.assign(called=predictions["probability"] >= threshold)
    for patient_id, group in judged.groupby("patient_id", sort=True):
        labels = group["label"].to_numpy(dtype=np.int64)
        probabilities = group["probability"].to_numpy(dtype=np.float64)
        called, malignant = group["called"].to_numpy(dtype=bool), labels == MALIGNANT
        n_malignant = int(malignant.sum())
        rarer = min(n_malignant, len(labels) - n_malignant)
        rows.append(
            {
                "patient_id": str(patient_id),
                "n_images": len(labels),
                "true_share": float(malignant.mean()),
                "called_share": float(called.mean()),
                "correct_share": float((called == malignant).mean()),
                "auroc": auroc(labels, probabilities),
                "few": (rarer or len(labels)) < FEW_IMAGES,
            }
        )
    columns = ["patient_id", "n_images", "true_share", "called_share", "correct_share", "auroc", "few"]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values(["auroc", "correct_share", "patient_id"], ignore_index=True)
