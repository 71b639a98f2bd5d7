r"""Which settings suit a data set: variants of a recipe, cross-validated on the same folds with several seeds.

    python benchmarks/variants.py breastmnist.npz --by image --only train_images --log tried.jsonl \
        --variant "" --variant "augment.zoom=0.2" --variant "min_steps=1200"

Nothing is chosen on the fold that is held out: every network is trained to its end, and decides at probability 0.5.
What is chosen from the table is chosen on all of its images: they have become validation. A fold that is in the log
is not trained again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clearmargin.config import load_recipe, parse_settings
from clearmargin.data.audit import audit_images
from clearmargin.data.manifest import Manifest
from clearmargin.data.split import fold_manifest
from clearmargin.data.store import pack_store
from clearmargin.evaluation.intervals import delong_interval
from clearmargin.evaluation.metrics import auroc
from clearmargin.images.preprocess import choose_preprocessing
from clearmargin.models import build_model
from clearmargin.models.contract import normalise, scale_pixels
from clearmargin.settings import DataSettings, RunConfig
from clearmargin.training.adapt import adapt_to_images, are_grey
from clearmargin.training.batches import TrainingImages
from clearmargin.training.loop import fit_model

_FIRST = 32  # the loop wants validation images: as few as may be, so that time goes into training


def main() -> None:
    options = _parse()
    data = DataSettings(root=str(options.data), view=options.view, normal=options.normal)
    manifest = audit_images(data, ignore_official=True).manifest
    manifest = manifest.keep(manifest.frame["path"].str.contains(options.only, regex=False).to_numpy())
    done = _read(options.log)
    labels = manifest.labels()
    print(f"{len(manifest):,} images, {int(labels.sum()):,} malignant, {torch.get_num_threads()} threads")
    print("| variant | AUROC by seed | AUROC, mean (interval of the first) | accuracy | log loss | s a network |")
    print("|---|---|---|---|---|---|")
    for variant in options.variant:
        changes = parse_settings(part for part in variant.split(";") if part)
        tables = []
        for seed in range(options.seeds):
            config = load_recipe(options.recipe, changes | {"seed": seed})
            folds = fold_manifest(manifest, options.folds, by=options.by, seed=seed)
            logits = np.zeros(len(manifest))
            seconds = 0.0
            for fold in range(options.folds):
                key = f"{options.data.name}{options.only}|{options.recipe}|{variant}|{seed}|{fold}/{options.folds}"
                if key not in done:
                    done[key] = _train(manifest, config, folds == fold)
                    with options.log.open("a", encoding="utf-8") as log:
                        log.write(json.dumps({"key": key, **done[key]}) + "\n")
                logits[folds == fold] = done[key]["logits"]
                seconds += done[key]["seconds"] / options.folds
            tables.append((logits, seconds))
        print(_row(variant, labels, tables), flush=True)


def _train(manifest: Manifest, config: RunConfig, held_out: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, Any]:
    """The held-out images' logits, and the seconds that training took."""
    sizes = manifest.frame[["width", "height"]].to_numpy(dtype=np.int64)
    preprocessing = choose_preprocessing(config.images, sizes, content=manifest.content)
    store = pack_store(manifest, preprocessing)
    train, tested = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    adapted = adapt_to_images(config, images=len(train), grey=are_grey(store.images, content=manifest.content))
    assert not (adapted.train.patience or adapted.train.restore_best), "what ends training would be chosen on the fold"
    data = TrainingImages(store.images, manifest.labels(), train, tested[:_FIRST])
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as run:
        model = build_model(config.model.name, preprocessing.shape, seed=config.seed)
        model = fit_model(model, data, adapted, preprocessing, run=Path(run), fingerprint="benchmark").model
    with torch.inference_mode():
        x = scale_pixels(torch.from_numpy(store.images[tested]))
        logits = model(normalise(x, preprocessing.mean, preprocessing.std))
    return {"logits": logits.tolist(), "seconds": time.monotonic() - started}


def _row(variant: str, labels: np.ndarray[Any, np.dtype[np.int8]], tables: list[tuple[Any, float]]) -> str:
    probabilities = [1 / (1 + np.exp(-logits)) for logits, _ in tables]
    values = [auroc(labels, each) for each in probabilities]
    accuracy = np.mean([((each > 0.5) == labels).mean() for each in probabilities])
    loss = np.mean([-np.log(np.where(labels == 1, each, 1 - each).clip(1e-7)).mean() for each in probabilities])
    interval = delong_interval(labels, probabilities[0])
    ends = interval if isinstance(interval, str) else f"{interval.low:.3f} to {interval.high:.3f}"
    seconds = np.mean([seconds for _, seconds in tables])
    by_seed = " ".join(f"{value:.3f}" for value in values)
    figures = f"{by_seed} | {np.mean(values):.3f} ({ends}) | {accuracy:.3f} | {loss:.3f} | {seconds:.0f}"
    return f"| {variant or 'as it is'} | {figures} |"


def _read(log: Path) -> dict[str, dict[str, Any]]:
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    return {entry["key"]: entry for entry in map(json.loads, lines)}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--by", choices=["patient", "image"], default="patient")
    parser.add_argument("--only", default="", help="take the images with this in their path")
    parser.add_argument("--view", default="full")
    parser.add_argument("--normal", default="exclude")
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--variant", action="append", required=True, help="settings, as key=value;key=value")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--log", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
