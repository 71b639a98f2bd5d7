"""The run folder: opened once, written file by file under another name, complete when run.json is there.

config.toml environment.json manifest.parquet audit.json split.csv history.csv log.jsonl
predictions.csv metrics.json report.html bundle/ checkpoint/ run.json
and folds/ or seeds/, with a run in each folder of theirs. Of several networks, checkpoint/ has a folder for each, with
history.csv and checkpoint/; field/ has those that see the field around a patch.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from clearmargin import __version__
from clearmargin.config import dump_config, read_config
from clearmargin.errors import ConfigError, UsageError
from clearmargin.files import disk_errors, make_folder, partial_path, write_json, write_text
from clearmargin.settings import RunConfig

LIBRARIES = ("torch", "lightning-fabric", "onnx", "onnxruntime", "numpy", "pandas", "pillow", "scikit-learn", "scipy")
HASHED = ("config.toml", "manifest.parquet", "split.csv", "predictions.csv", "metrics.json", "bundle/SHA256SUMS")

Kind = Literal["run", "optimism"]
"""What a folder holds: a run (or an evaluation), or the runs of `optimism` under either split."""
FOLDS, SEEDS = "folds", "seeds"
"""Folders of the runs that a cross-validation, or a run with several seeds, is made of."""
NETWORKS, FIELD = "checkpoint", "field"
"""Where a run keeps several networks, a folder for each by its number; and those that see the field around a patch."""


def is_complete(run: Path) -> bool:
    """The run ended; every file is there."""
    return (run / "run.json").is_file()


def is_begun(run: Path) -> bool:
    """Training has saved something, or the run is complete."""
    return any((run / name).is_dir() for name in ("checkpoint", FOLDS)) or is_complete(run)


@contextmanager
def open_run(run: Path, config: RunConfig, *, resume: bool | None, holds: Kind = "run") -> Iterator[None]:
    """Holds the run folder, new or to be gone on with; nobody else can write to it meanwhile.

    Args:
        run: the folder.
        config: what it is made with.
        resume: go on with what is there; None where the command cannot, for the message.
        holds: what is written there.

    Raises:
        UsageError: it exists and `resume` is off, it is no run, or another process works in it.
        ConfigError: it was begun with other settings.
        DataError: the disk is full or not writable.
    """
    with disk_errors(run):
        _check_free(run, resume=resume, holds=holds)
        make_folder(run)
        lock = FileLock(run / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(
                f"{run}: another process is working in this run folder. Wait for it, or use another."
            ) from None
        try:
            saved = run / "config.toml"
            if is_begun(run):
                check_same(read_config(saved), config, run)
            else:  # what a run left that stopped before training, over a typo say, binds nobody
                write_text(saved, dump_config(config))
            yield
        finally:
            # While it is held: afterwards it may be another's. Windows keeps a file that is open.
            with suppress(PermissionError):
                (run / ".lock").unlink(missing_ok=True)
            lock.release()


def finish_run(run: Path, facts: Mapping[str, Any], *, hashed: Sequence[str] = HASHED) -> None:
    """Writes run.json, which makes the run complete, with the hashes of its files."""
    files = {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in hashed}
    content = {"schema": 1, "complete": True, "clearmargin": __version__, "finished": now(), **facts, "sha256": files}
    write_json(run / "run.json", content)


def describe_environment(command: str) -> dict[str, Any]:
    """What a reader needs to repeat the run elsewhere: software, machine, command."""
    return {
        "clearmargin": __version__,
        "command": command,
        "started": now(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _check_free(run: Path, *, resume: bool | None, holds: Kind) -> None:
    if not run.exists():
        return
    if not run.is_dir():
        raise UsageError(f"{run}: is a file; give a folder that does not exist yet with --out.")
    # What a run that was killed at once may have left behind.
    own = {".lock", partial_path(run / "config.toml").name}
    names = {entry.name for entry in run.iterdir()} - own
    if not names:
        return
    if "config.toml" not in names:
        raise UsageError(f"{run}: the folder is not empty and holds no run. Give a new folder with --out.")
    if "space.toml" in names:
        raise UsageError(f"{run}: holds what 'sweep' wrote. Give a new folder with --out.")
    if holds != "optimism" and names & {"optimism.json", "image", "patient"}:
        raise UsageError(f"{run}: holds what 'optimism' wrote. Give a new folder with --out.")
    if is_begun(run) and not resume:
        other = "" if resume is None else ", or go on with --resume"
        raise UsageError(f"{run}: there is a run in this folder already. Give another --out{other}.")


def check_same(saved: RunConfig, wanted: RunConfig, run: Path) -> None:
    """Passes when a run is to be gone on with under the settings that it was begun with.

    Raises:
        ConfigError: names the first setting that differs.
    """
    old, new = flat(saved.model_dump(mode="json")), flat(wanted.model_dump(mode="json"))
    changed = [key for key in new if old.get(key) != new[key]]
    if changed:
        key = changed[0]
        more = f" (and {len(changed) - 1} more)" if changed[1:] else ""
        raise ConfigError(
            f"{run}: the run was begun with {key} = {old.get(key)!r}, not {new[key]!r}{more}. "
            "Resume with the same settings, or give a new folder with --out."
        )


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings in sections as dotted key to value.

    >>> flat({"seed": 0, "train": {"epochs": 3}})
    {'seed': 0, 'train.epochs': 3}
    """
    result: dict[str, Any] = {}
    for key, value in values.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return result


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
