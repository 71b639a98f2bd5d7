"""Checks of the machine and of the user's account: Python, disk, memory, cores, files, names, port, network."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from clearmargin.doctor.outcome import Outcome, failed, ok, warning

_GIB = 2**30
LEAST_DISK_BYTES, GOOD_DISK_BYTES = _GIB // 4, 5 * _GIB
"""Below the first hardly any data set can be packed; 277,524 patches of 50 × 50 pixels take 2 GB."""
LEAST_MEMORY_BYTES, GOOD_MEMORY_BYTES = _GIB, 4 * _GIB
GOOD_OPEN_FILES = 1024
"""`serve` takes up to 900 connections."""
PORT = 8000
CGROUP = Path("/sys/fs/cgroup")
_ODD_NAME = "β-Ångström 乳腺 №1.png"


def check_python() -> Outcome:
    """The version is one that the package takes, of 64 bits."""
    found, bits = platform.python_version(), 64 if sys.maxsize > 2**32 else 32
    wanted = _wanted_python()
    if wanted and not _is_in(found, wanted):
        return failed(f"Python {found}, and Clearmargin needs {wanted}", "Make an environment with a newer Python.")
    if bits == 32:
        return failed(f"Python {found} of 32 bits, for which there is no torch", "Install a Python of 64 bits.")
    inside = "in an environment of its own" if sys.prefix != sys.base_prefix else "not in an environment of its own"
    return ok(f"Python {found} on {platform.system()} {platform.machine()}, {inside}")


def check_cache() -> Outcome:
    """The folder of packed images can be written to, and there is room."""
    from clearmargin.data.store import cache_folder

    folder, name = cache_folder(), "CLEARMARGIN_CACHE"
    fix = f"Set {name} to a folder on a disk with room that you can write to."
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryDirectory(dir=there):
            pass
    except OSError as error:
        return failed(f"{folder}: nothing can be written there ({error.strerror})", fix)
    free = shutil.disk_usage(there).free
    text = f"{folder}: writable, {_size(free)} free"
    if free < LEAST_DISK_BYTES:
        return failed(text, fix)
    return warning(text, fix) if free < GOOD_DISK_BYTES else ok(text)


def check_memory() -> Outcome:
    """What the machine, or the container, has."""
    total = memory_bytes()
    if total is None:
        return ok("not known on this system")
    limit = _memory_limit()
    text = f"{_size(total)}{' allowed by the container' if limit == total else ''}"
    fix = "Give the container or the machine more; else train with a smaller train.batch_size."
    if total < LEAST_MEMORY_BYTES:
        return failed(text, fix)
    return warning(text, fix) if total < GOOD_MEMORY_BYTES else ok(text)


def check_cores() -> Outcome:
    """As many threads are started as there are cores to run them."""
    seen = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else seen
    quota = cpu_quota()
    usable = min(allowed, quota) if quota else allowed
    if usable >= seen:
        return ok(f"{seen}")
    number = max(1, round(usable))
    return warning(
        f"{seen} are seen, and {usable:g} may be used: more threads than that wait for each other",
        f"Set OMP_NUM_THREADS={number}; with containers give whole cores (--cpuset-cpus) instead of a share of all.",
    )


def check_open_files() -> Outcome:
    """How many files and connections the process may have open."""
    try:
        import resource
    except ImportError:
        return ok("no limit on this system")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= GOOD_OPEN_FILES:
        return ok("no limit" if soft == resource.RLIM_INFINITY else f"{soft:,}")
    return warning(
        f"only {soft:,}, of {hard:,} that could be; a busy server needs more", f"Run: ulimit -n {GOOD_OPEN_FILES}"
    )


def check_file_names() -> Outcome:
    """Names in any letters can be written, found again and printed."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            (Path(folder) / _ODD_NAME).touch()
            found = [entry.name for entry in Path(folder).iterdir()]
        except (OSError, UnicodeError) as error:
            return failed(f"a file name in other letters cannot be written ({error})", _utf8_fix())
    import unicodedata

    if [unicodedata.normalize("NFC", name) for name in found] != [unicodedata.normalize("NFC", _ODD_NAME)]:
        return failed("a file name in other letters comes back changed", _utf8_fix())
    system, shown = sys.getfilesystemencoding(), str(getattr(sys.stdout, "encoding", None) or "none")
    if shown.lower().replace("-", "") != "utf8":
        return warning(f"{system} on disk, but output is {shown}: other letters are shown as codes", _utf8_fix())
    return ok(f"{system} on disk and in output")


def check_key() -> Outcome:
    """The key of pseudonyms, if there is one, is one, and the user's own."""
    from clearmargin.data.pseudonyms import key_file, read_key

    path = key_file()
    if not path.exists():
        return ok(f"none yet; --pseudonymise makes it at {path}")
    read_key()
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        return warning(f"{path}: others on this machine can read it (mode {mode:o})", f"Run: chmod 600 '{path}'")
    return ok(f"{path}: for you alone")


def check_port() -> Outcome:
    """The port of `serve` is free."""
    try:
        with socket.create_server(("127.0.0.1", PORT)):
            return ok(f"{PORT} is free")
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)  # strerror repeats the address
        return warning(f"{PORT} cannot be opened ({reason})", "Serve with another: clearmargin serve --port 0")


def check_network() -> Outcome:
    """No library reports to its makers."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    from clearmargin.tracking.mlflow_store import SILENCE

    if os.environ["ORT_DISABLE_TELEMETRY"] != "1":
        return warning("ORT_DISABLE_TELEMETRY is set to something else than 1", "Unset it; Clearmargin sets it.")
    silent = ", ".join(["ORT_DISABLE_TELEMETRY", *SILENCE])
    users = "'download', '--weights hub' and a tracking server that you name"
    return ok(f"not used, but by {users}; reports are off ({silent})")


def memory_bytes() -> int | None:
    """What this process can have at most, None where that is not known."""
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # as on Windows
        return None
    limit = _memory_limit()
    return physical if limit is None else min(physical, limit)


def _memory_limit() -> int | None:
    words = _read_first(CGROUP / "memory.max", CGROUP / "memory" / "memory.limit_in_bytes")
    return int(words[0]) if words and words[0].isdigit() else None


def cpu_quota() -> float | None:
    """How many cores the container may use, None where nothing is said."""
    words = _read_first(CGROUP / "cpu.max")
    if len(words) == 2 and words[0].isdigit():
        return int(words[0]) / int(words[1])
    quota = _read_first(CGROUP / "cpu" / "cpu.cfs_quota_us")
    period = _read_first(CGROUP / "cpu" / "cpu.cfs_period_us")
    return int(quota[0]) / int(period[0]) if quota and period and quota[0].isdigit() else None


def _read_first(*paths: Path) -> list[str]:
    return next(_words(paths), [])


def _words(paths: tuple[Path, ...]) -> Iterator[list[str]]:
    for path in paths:
        try:
            yield path.read_text(encoding="ascii").split()
        except (OSError, UnicodeDecodeError):
            continue


def _wanted_python() -> str:
    try:
        return str(metadata("clearmargin")["Requires-Python"] or "")
    except PackageNotFoundError:
        return ""


def _is_in(version: str, wanted: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(wanted).contains(version, prereleases=True)


def _utf8_fix() -> str:
    return "Set PYTHONUTF8=1, and a UTF-8 locale such as LANG=C.UTF-8."


def _size(number: int) -> str:
    return f"{number / _GIB:,.1f} GiB"
