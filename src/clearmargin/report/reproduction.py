"""How to do the run again, worded: command, machine, versions, hashes, time per stage, settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clearmargin.config import setting_names
from clearmargin.report.provenance import Terms, join
from clearmargin.report.run_files import RunFiles, Values
from clearmargin.report.words import DASH, duration, moment, plural
from clearmargin.settings import RunConfig


@dataclass(frozen=True, slots=True)
class Setting:
    key: str
    value: str
    changed: bool


def machine(run: RunFiles) -> Terms:
    """Versions, hashes, seed and machine."""
    environment = run.environment
    libraries: Mapping[str, str] = environment.get("libraries") or {}
    seed = run.protocol.get("seed", run.config.seed if run.config else None)
    terms: list[tuple[str, Any]] = [
        ("Started", environment.get("started") and moment(str(environment["started"]))),
        ("Clearmargin", environment.get("clearmargin")),
        ("Python", environment.get("python")),
        ("Platform", environment.get("platform")),
        ("Processor", join(environment.get("processor"), _cores(environment))),
        ("Device", join(environment.get("device"), environment.get("precision"))),
        ("Seed", None if seed is None else str(seed)),
        ("Data sha256", environment.get("data_sha256")),
        ("Split sha256", environment.get("split_sha256") or run.protocol.get("split_sha256")),
        ("Libraries", ", ".join(f"{name} {version}" for name, version in libraries.items())),
    ]
    return [(term, str(text)) for term, text in terms if text]


def _cores(environment: Values) -> str:
    cores, threads = environment.get("cores"), environment.get("threads")
    return join(cores and plural(cores, "core"), threads and f"{plural(threads, 'thread')} used")


def stages(environment: Values) -> list[tuple[str, str, str]]:
    """(stage, time, share of the longest in percent), in the order they ran."""
    seconds: Mapping[str, float] = environment.get("seconds") or {}
    longest = max(seconds.values(), default=0.0) or 1.0
    return [(name, duration(value), f"{100 * value / longest:.1f}") for name, value in seconds.items()]


def settings(config: RunConfig) -> list[Setting]:
    """Every setting, dotted, marked where it is not the default; a section that the recipe does not have has none."""
    now, default = _flat(config.model_dump(mode="json")), _flat(RunConfig().model_dump(mode="json"))
    known = set(setting_names())
    return [Setting(key, _text(value), value != default.get(key)) for key, value in now.items() if key in known]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _text(value: object) -> str:
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value) or "(empty)"
