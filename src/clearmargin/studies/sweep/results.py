"""What a sweep leaves behind: trials.csv, best.toml, sweep.json and the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clearmargin import __version__
from clearmargin.config import dump_config
from clearmargin.evaluation.folds import across_folds
from clearmargin.evaluation.winner import Luck, judge_winner
from clearmargin.files import write_json, write_text, write_whole
from clearmargin.report.sweep_page import write_sweep_page
from clearmargin.settings import RunConfig
from clearmargin.studies.sweep import folder as place
from clearmargin.studies.sweep.records import Plan, Trial, logits_file, tabulate
from clearmargin.studies.sweep.setup import Setup
from clearmargin.studies.sweep.space import encode
from clearmargin.studies.sweep.study import Study
from clearmargin.studies.sweep.trial import HELD_OUT, Folds
from clearmargin.training.run_folder import now
from clearmargin.workflow import Run

TRIALS_FILE, BEST, PAGE = "trials.csv", "best.toml", "sweep.html"
_RESAMPLES = 200


@dataclass(frozen=True, slots=True)
class Sweep:
    """A finished sweep on disk."""

    folder: Path

    @property
    def summary(self) -> dict[str, Any]:
        """sweep.json."""
        content: dict[str, Any] = json.loads((self.folder / place.SUMMARY).read_text(encoding="utf-8"))
        return content

    @property
    def trials(self) -> pd.DataFrame:
        """trials.csv, one row a trial."""
        return pd.read_csv(self.folder / TRIALS_FILE)

    @property
    def best(self) -> Path:
        """The winner's settings, a recipe."""
        return self.folder / BEST

    @property
    def run(self) -> Run:
        """The winner, trained on train, and its test."""
        return Run(self.folder / place.RUN)

    @property
    def page(self) -> Path:
        """The page of results, one HTML file."""
        return self.folder / PAGE


def write_trials(out: Path, study: Study) -> pd.DataFrame:
    """Writes trials.csv as it is now, and returns it."""
    table = tabulate(study.trials(), study.space.keys, study.plan.folds)
    write_whole(out / TRIALS_FILE, lambda path: table.to_csv(path, index=False))
    return table


def write_best(out: Path, config: RunConfig, winner: Trial, plan: Plan) -> None:
    """Writes best.toml: every setting of the winner but those of the data, as a recipe."""
    told = f"The winner of a sweep of {plan.trials} trials: " + (
        "the recipe's own settings."
        if winner.is_baseline
        else ", ".join(f"{key}={encode(value)}" for key, value in winner.settings.items()) + "."
    )
    described = config.model_copy(update={"description": told, "data": type(config.data)()})
    text = dump_config(described)
    begin, data = text.index("[data]"), text.index("\n[", text.index("[data]"))
    write_text(out / BEST, text[:begin] + text[data + 1 :])


def write_results(
    out: Path,
    setup: Setup,
    trials: Sequence[Trial],
    table: pd.DataFrame,
    *,
    winner: Trial,
    run: Run,
    protocol: Mapping[str, Any],
    environment: Mapping[str, Any],
) -> None:
    """Writes the page, and sweep.json, which makes the sweep complete.

    Args:
        out: the folder.
        setup: what was searched.
        trials: all of them.
        table: trials.csv.
        winner: one of them.
        run: of the winner.
        protocol: how the folds were made.
        environment: software, machine and command.
    """
    metrics = run.metrics
    baseline = next((each for each in trials if each.is_baseline and each.state == "complete"), None)
    complete = _distinct(trials, winner)
    luck = _luck(out, setup, complete)
    wins = {_figures(each): float(share) for each, share in zip(complete, luck.wins, strict=True)}
    counts = table["state"].value_counts()
    content: dict[str, Any] = {
        "schema": 1,
        "complete": True,
        "clearmargin": __version__,
        "finished": now(),
        "recipe": setup.recipe,
        "space": setup.space.table(),
        "plan": {"trials": setup.plan.trials, "folds": setup.plan.folds, "pruner": setup.plan.pruner},
        "protocol": {**metrics["protocol"], "trials": dict(protocol)},
        "metric": "mean over folds of the AUROC of the images that each fold holds out",
        "trials": {state: int(counts.get(state, 0)) for state in ("complete", "pruned", "failed", "stopped")},
        "winner": _describe(winner, setup, wins),
        "baseline": None if baseline is None else _describe(baseline, setup, wins),
        "baseline_settings": setup.baseline(),
        "corrected": {
            "value": luck.corrected,
            "resamples": luck.n,
            "method": "BBC-CV (Tsamardinos 2018): winners of resampled patients on the patients who were not drawn",
        },
        "test": _test(metrics),
        "environment": dict(environment),
    }
    if baseline is None:
        content["no_baseline"] = next((each.reason for each in trials if each.is_baseline and each.reason), "not tried")
    write_sweep_page(out / PAGE, content, table)
    write_json(out / place.SUMMARY, content)


def _distinct(trials: Sequence[Trial], winner: Trial) -> list[Trial]:
    """Complete trials, one of each figures to the last digit: the same network twice would share what it wins.

    That is what settings give that are tried again, or that the recipe has too.
    """
    found = {_figures(winner): winner}
    for each in trials:
        if each.state == "complete":
            found.setdefault(_figures(each), each)
    return sorted(found.values(), key=lambda each: each.number)


def _figures(trial: Trial) -> tuple[float, ...]:
    return tuple(trial.folds[fold].value for fold in sorted(trial.folds))


def _luck(out: Path, setup: Setup, complete: Sequence[Trial]) -> Luck:
    table = place.read_folds(out)
    folds: Folds = place.as_folds(table)
    held = [folds.rows(fold, HELD_OUT) for fold in range(setup.plan.folds)]
    numbers = np.concatenate([np.full(len(rows), fold) for fold, rows in enumerate(held)])
    rows = np.concatenate(held)
    logits = [
        np.concatenate([np.load(logits_file(out, each.origin, fold)) for fold in range(setup.plan.folds)])
        for each in complete
    ]
    patients = table["patient_id"].to_numpy(dtype=str)
    known = None if (patients == "").any() else patients[rows]
    return judge_winner(folds.labels[rows], numbers, logits, known, resamples=_RESAMPLES, seed=setup.base.seed)


def _describe(trial: Trial, setup: Setup, wins: Mapping[tuple[float, ...], float]) -> dict[str, Any]:
    values = _figures(trial)
    return {
        "number": trial.number,
        "baseline": trial.is_baseline,
        "settings": {key: trial.settings.get(key) for key in setup.space.keys},
        "value": trial.value,
        "folds": list(values),
        "across_folds": across_folds(values, test_share=1 / setup.plan.folds),
        "wins": wins.get(_figures(trial)),
    }


def _test(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What the winner has on test: as it decides, and alone, which is what trials were judged by."""
    block = metrics["test"]
    kinds = [kind for kind in ("image", "image_alone") if kind in block]
    figures = {kind: {"auroc": block[kind]["auroc"], "n_images": block[kind]["n_images"]} for kind in kinds}
    return {
        "n_patients": block["image"]["n_patients"],
        "networks": metrics["protocol"].get("crossfit") or 1,
        "note": block["interval"]["note"],
        **figures,
    }
