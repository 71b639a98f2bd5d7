"""How long an epoch takes beside its limit: the same steps on one batch that lies ready in memory.

    python benchmarks/epoch.py
    python benchmarks/epoch.py --recipe cancernet --data FOLDER --images 17337

An epoch is gathering from the store, augmentation, forward, backward and update; validation is not counted.
Both are measured in turn, three times; the table shows the fastest of each and their ratio.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from clearmargin.config import load_recipe, recipe_names
from clearmargin.data.audit import audit_manifest
from clearmargin.data.sources import read_source
from clearmargin.data.store import pack_store
from clearmargin.images.preprocess import Preprocessing, choose_preprocessing
from clearmargin.models import build_model
from clearmargin.settings import AugmentSettings, RunConfig
from clearmargin.training.batches import TrainingImages
from clearmargin.training.loop import choose_precision, fit_model
from images import add_options, folder_of


def seconds_of_epoch(data: TrainingImages, config: RunConfig, preprocessing: Preprocessing) -> float:
    with tempfile.TemporaryDirectory() as run:
        model = build_model(config.model.name, preprocessing.shape)
        fitted = fit_model(model, data, config, preprocessing, run=Path(run), fingerprint="benchmark")
    return min(row["seconds"] for row in fitted.history)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, images=6_000)
    parser.add_argument("--recipe", action="append", help="one or more; if not given, all that train a whole network")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with folder_of(options.data, options.images) as root, tempfile.TemporaryDirectory() as cache:
        manifest = audit_manifest(read_source(root)).manifest
        sizes = manifest.frame[["width", "height"]].to_numpy(dtype=int)
        print(f"{len(manifest):,} images, {torch.get_num_threads()} threads")
        print(f"{'recipe':<14} {'precision':<11} {'epoch/s':>9} {'compute/s':>10} {'epoch : compute':>16}")
        for name in options.recipe or [name for name in recipe_names() if name != "transfer"]:
            config = load_recipe(name, {"train.epochs": 2})
            preprocessing = choose_preprocessing(config.images, sizes)
            store = pack_store(manifest, preprocessing, folder=Path(cache))
            rows = np.arange(len(manifest))
            validation = rows[:64]
            labels = manifest.labels()
            whole = TrainingImages(store.images, labels, rows, validation)
            # The limit: one batch, gathered from an array of its own size, nothing augmented.
            batch = np.array(store.images[: config.train.batch_size])
            pattern = rows % len(batch)
            ready = TrainingImages(batch, labels[: len(batch)], pattern, validation % len(batch))
            plain = config.model_copy(update={"augment": AugmentSettings()})
            epochs, computes = [], []
            for _ in range(options.rounds):
                epochs.append(seconds_of_epoch(whole, config, preprocessing))
                computes.append(seconds_of_epoch(ready, plain, preprocessing))
            epoch, compute = min(epochs), min(computes)
            n = len(rows)
            print(
                f"{name:<14} {choose_precision(config.train):<11} {n / epoch:>9,.0f} {n / compute:>10,.0f} "
                f"{epoch / compute:>16.2f}"
            )


if __name__ == "__main__":
    main()
