"""The networks of a run: one, or by cross-fitting several, each without another part of the patients.

Averaged, they are one model; and each patient of train and validation has been left out by one of them, so that what
decides can be chosen on all of these patients instead of the few that validation alone would have.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from clearmargin.models.contract import Classifier
from clearmargin.models.ensemble import Ensemble
from clearmargin.settings import RunConfig
from clearmargin.training.batches import TrainingImages, derive_seed
from clearmargin.training.log import write_history
from clearmargin.training.loop import Fitted
from clearmargin.training.run_folder import NETWORKS
from clearmargin.types import Listener

Logits = Callable[[int | None, NDArray[np.intp]], NDArray[np.float32]]
"""What the network of this number, None for all as one, says of the images in these rows."""
TrainOne = Callable[[TrainingImages, RunConfig, Path, str], Fitted]
"""Trains a new network on this data by these settings in this folder, or goes on there; the text is the fingerprint."""


@dataclass(frozen=True, slots=True)
class Trained:
    """The networks, and the part (N,) of the images that each has not seen: its number, -1 where all were kept away."""

    networks: tuple[Fitted, ...]
    parts: NDArray[np.intp] | None = None
    """None where there is one network, which has seen train only."""

    @property
    def model(self) -> Classifier:
        """All of them as one, whose logit is the mean of theirs."""
        models = [network.model for network in self.networks]
        return models[0] if len(models) == 1 else Ensemble(models).eval()

    def logits(self, of: Logits, n: int) -> NDArray[np.float64]:
        """(N,) of every image, from networks that have not seen it; of one network, from that.

        Args:
            of: computes them.
            n: how many images there are.
        """
        if self.parts is None:
            return of(None, np.arange(n)).astype(np.float64)
        result = np.empty(n)
        for number in np.unique(self.parts):
            rows = np.flatnonzero(self.parts == number)
            result[rows] = of(None if number < 0 else int(number), rows)
        return result


def train_networks(
    train_one: TrainOne,
    data: TrainingImages,
    config: RunConfig,
    *,
    parts: NDArray[np.intp] | None,
    run: Path,
    fingerprint: str,
    listener: Listener = Listener(),
) -> Trained:
    """Trains the networks, or goes on where the run folder says.

    Writes `history.csv` and `checkpoint/` into `run`; of several networks into a folder of each in `checkpoint/`, and
    `history.csv` is their mean.

    Args:
        train_one: trains each, from the seed in the settings that it is given.
        data: the images, with the rows of train and validation.
        config: the settings.
        parts: (N,) the part that each image belongs to, -1 for those of no part; None trains one network.
        run: the folder.
        fingerprint: of everything that decides what comes out.
        listener: hears how it goes on.

    Raises:
        ClearmarginError: as `train_one`.
    """
    note_of_load(listener)
    if parts is None:
        return Trained((train_one(data, config, run, fingerprint),))
    networks = []
    for number in range(int(parts.max()) + 1):
        seed = derive_seed(config.seed, number) % 2**31
        listener.note(f"Network {number + 1} of {int(parts.max()) + 1}.")
        folder = run / NETWORKS / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        part = replace(
            data,
            train=np.flatnonzero((parts >= 0) & (parts != number)),
            validation=np.flatnonzero(parts == number),
        )
        networks.append(train_one(part, config.model_copy(update={"seed": seed}), folder, f"{fingerprint} {number}"))
    write_history(run / "history.csv", _mean_history([network.history for network in networks]))
    return Trained(tuple(networks), parts)


def note_of_load(listener: Listener) -> None:
    """Tells the listener when others keep the cores busy: threads that wait for each other then wait for those too."""
    cores, threads = os.cpu_count() or 1, torch.get_num_threads()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if threads > 1 and load > 1.5 * cores and not torch.cuda.is_available():
        listener.note(
            f"This machine is busy (load {load:.0f} on {cores} cores), and {threads} threads may train far more slowly "
            "than one: OMP_NUM_THREADS=1 before the command gives it one."
        )


def fewest_trained_on(data: TrainingImages, parts: NDArray[np.intp] | None) -> int:
    """How many images the network that sees the fewest is trained on."""
    if parts is None:
        return len(data.train)
    sizes = np.bincount(parts[parts >= 0])
    return int(sizes.sum() - sizes.max())


def _mean_history(histories: Sequence[Sequence[dict[str, float]]]) -> list[dict[str, float]]:
    """Epoch by epoch the mean over the networks that got so far."""
    rows = []
    for epoch in range(max(map(len, histories))):
        there = [history[epoch] for history in histories if len(history) > epoch]
        rows.append({name: float(np.mean([row[name] for row in there])) for name in there[0]} | {"epoch": epoch + 1})
    return rows
