"""What is told of a run, from the files of its folder: settings, history, figures with their intervals, tags, pictures.

Only what the run folder holds leaves it, so what is hidden there (`--pseudonymise`) is hidden everywhere.
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearmargin import __version__
from clearmargin.config import read_config
from clearmargin.tracking.places import HISTORY
from clearmargin.training.run_folder import flat
from clearmargin.types import INTENDED_USE, SPLITS

_PICTURES = ("confusion", "roc", "reliability")
_ARTEFACTS = ("report.html", "metrics.json", "bundle/model.json", "optimism.json")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run was asked for."""

    name: str
    values: Mapping[str, Any]
    """Every setting by its dotted key."""
    text: str
    """config.toml."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came out of a run."""

    figures: Mapping[str, float]
    """Name, as test/image/auroc, to value; the ends of its 95 % interval have _low and _high at the end."""
    tags: Mapping[str, str]
    settings: Settings
    files: tuple[Path, ...]
    folder: Path


def read_settings(folder: Path) -> Settings:
    """The settings of the run in the folder, as it keeps them."""
    path = folder / "config.toml"
    values = flat(read_config(path).model_dump(mode="json", exclude_none=True))
    return Settings(folder.resolve().name, values, path.read_text(encoding="utf-8"))


def read_history(folder: Path) -> list[dict[str, float]]:
    """The rows of history.csv in the folder; cells that are empty or no number are left out."""
    try:
        with (folder / HISTORY).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return []
    return [{name: float(text) for name, text in row.items() if text not in ("", "nan")} for row in rows]


def read_result(folder: Path) -> Result:
    """What came out of the run, or of the `optimism`, in the folder."""
    settings = read_settings(folder)
    tags = begin_tags(settings)
    files = tuple(folder / name for name in _ARTEFACTS if (folder / name).is_file())
    if (folder / "optimism.json").is_file():
        return Result(dict(_gap(_read_json(folder / "optimism.json"))), tags, settings, files, folder)
    metrics = _read_json(folder / "metrics.json")
    tags |= _protocol_tags(metrics["protocol"])
    if (folder / "bundle" / "model.json").is_file():
        tags["data_sha256"] = str(_read_json(folder / "bundle" / "model.json")["lineage"]["data_sha256"])
    if "warning" in metrics:
        tags["warning"] = str(metrics["warning"])
    return Result(dict(_figures(metrics)), tags, settings, files, folder)


def begin_tags(settings: Settings) -> dict[str, str]:
    """What is known before anything came out."""
    return {
        "clearmargin": __version__,
        "recipe": str(settings.values["recipe"]),
        "model": str(settings.values["model.name"]),
        "intended_use": INTENDED_USE,
    }


def draw_pictures(folder: Path) -> dict[str, bytes]:
    """The pictures of the report that stand for all of it, as PNG by name; none of a folder without predictions."""
    if not (folder / "predictions.csv").is_file():
        return {}
    from clearmargin.report.certainty import reliability_plot
    from clearmargin.report.pictures import result_plots
    from clearmargin.report.run_files import read_run

    run = read_run(folder)
    plots = {plot.name: plot.picture for plot in (*result_plots(run), reliability_plot(run))}
    drawn = {}
    with tempfile.TemporaryDirectory() as place:
        for name in _PICTURES:
            picture, path = plots.get(name), Path(place) / f"{name}.png"
            if picture is not None:
                picture.save(path)
                drawn[name] = path.read_bytes()
    return drawn


def _figures(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for split in SPLITS:
        for level in ("image", "image_alone", "slide", "patient"):
            block = metrics.get(split, {}).get(level) or {}
            for name, entry in block.items():
                yield from _figure(f"{split}/{level}/{name}", entry)
    yield "operating_point/threshold", float(metrics["operating_point"]["threshold"])


def _gap(optimism: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for part in ("random", "patient", "gap"):
        for name, entry in optimism[part].items():
            yield from _figure(f"{part}/{name}", entry)


def _figure(name: str, entry: object) -> Iterator[tuple[str, float]]:
    if isinstance(entry, (int, float)) and not isinstance(entry, bool):
        yield name, float(entry)
    elif isinstance(entry, Mapping) and isinstance(entry.get("value"), (int, float)):
        yield name, float(entry["value"])
        if entry.get("ci"):
            yield f"{name}_low", float(entry["ci"][0])
            yield f"{name}_high", float(entry["ci"][1])


def _protocol_tags(protocol: Mapping[str, Any]) -> dict[str, str]:
    names = ("split", "split_sha256", "seed", "folds", "crossfit", "stamp")
    return {name: str(protocol[name]) for name in names if name in protocol}


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
