"""What SqueezeNet's features tell of IDC patches, by the size to which patches are enlarged and the number of views.

    python benchmarks/transfer.py --data IDC --weights squeezenet_notop.h5
    python benchmarks/transfer.py --data IDC --weights squeezenet_notop.h5 --every 1 --px 100 --views 8

The head is scikit-learn's logistic regression (C = 0.01) on standardised features, in four folds by patient. AUROC and
balanced accuracy (at the share of malignant patches) are of all out-of-fold predictions together. Heads are trained on
all views and tested on the image as it is.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler

from clearmargin.data.sources import read_source
from clearmargin.images.read import read_image
from clearmargin.models import build_model
from clearmargin.models.backbones import Backbone, BackboneOptions
from clearmargin.models.contract import scale_pixels
from clearmargin.models.weights import read_weights
from clearmargin.training.features import turn

PX = 50


def pooled(backbone: Backbone, images: NDArray[np.uint8], views: int) -> NDArray[np.float32]:
    """(N, views, width) features."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), 64):
            x = scale_pixels(torch.from_numpy(images[start : start + 64]))
            parts.append(
                torch.stack([backbone.pool(backbone.forward_features(turn(x, view))) for view in range(views)], dim=1)
            )
    return torch.cat(parts).numpy()


def out_of_fold(
    features: NDArray[np.float32], labels: NDArray[np.int8], patients: NDArray[np.str_]
) -> NDArray[np.float64]:
    """(N,) logits, each by a head that has not seen the patient."""
    logits = np.zeros(len(labels))
    views = features.shape[1]
    for train, test in StratifiedGroupKFold(4, shuffle=True, random_state=0).split(features, labels, patients):
        seen = features[train].reshape(-1, features.shape[2])
        scaler = StandardScaler().fit(seen)
        head = LogisticRegression(C=1e-2, max_iter=300).fit(scaler.transform(seen), np.repeat(labels[train], views))
        logits[test] = head.decision_function(scaler.transform(features[test, 0]))
    return logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the IDC patches")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--every", type=int, default=4, help="take each so many-th patch")
    parser.add_argument("--px", type=int, nargs="+", default=[50, 75, 100, 150])
    parser.add_argument("--views", type=int, nargs="+", default=[1])
    options = parser.parse_args()
    frame = read_source(options.data).frame.sort_values("path").iloc[:: options.every]
    pixels = [read_image(path).pixels for path in frame["path"]]
    whole = np.array([image.shape == (PX, PX, 3) for image in pixels])
    images = np.stack([image for image in pixels if image.shape == (PX, PX, 3)])
    labels, patients = (frame[name].to_numpy()[whole] for name in ("label", "patient_id"))
    print(f"{len(images):,} patches of {len(set(patients))} patients, {torch.get_num_threads()} threads")
    print(f"{'px':>4} {'views':>6} {'AUROC':>7} {'balanced accuracy':>18} {'images/s':>9}")
    for px in options.px:
        for views in options.views:
            backbone = build_model("squeezenet", (PX, PX, 3), options=BackboneOptions(input_px=px))
            assert isinstance(backbone, Backbone)
            backbone.trunk.load(read_weights(options.weights, keras=True), str(options.weights))
            started = time.monotonic()
            features = pooled(backbone, images, views)
            rate = len(images) / (time.monotonic() - started)
            logits = out_of_fold(features, labels, patients)
            called = logits > np.log(labels.mean() / (1 - labels.mean()))
            scores = roc_auc_score(labels, logits), balanced_accuracy_score(labels, called)
            print(f"{px:>4} {views:>6} {scores[0]:>7.3f} {scores[1]:>18.3f} {rate:>9.0f}")


if __name__ == "__main__":
    main()
