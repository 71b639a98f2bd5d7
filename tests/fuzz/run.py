"""`make fuzz`: attacks every reader for some minutes with inputs that are new each time, and keeps what broke one.

    python -m tests.fuzz.run --minutes 10 [--targets png,tiff] [--keep FOLDER]

Each failing input is kept in FOLDER, made as small as it can be, with the traceback beside it; an input that ends
the whole process lies there under its target's name and `.current`. What ends only a child, which is what children
are for, is kept as `-crashed-` and is no find. Exit code 1 when anything was found.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import random
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from tempfile import mkdtemp

from hypothesis import HealthCheck, Phase, given, seed, settings
from tests.fuzz.targets import Target, build_targets

_BATCH = 1_000
_MAX_FINDS = 10
_SLOW_S = 5.0
_STUCK_S = 120.0
_MEMORY_BYTES = 8 << 30


def _check_time(seconds: float) -> None:
    assert seconds < _SLOW_S, f"took {seconds:.1f} s"


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _silence_libraries() -> None:
    """What C libraries print of damaged files goes nowhere; Python's own standard error stays."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _as_bytes(value: bytes | str) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")


def hunt(name: str, target: Target, seconds: float, folder: Path) -> tuple[Counter[str], int]:
    """How often each outcome came, and how many failing inputs were kept."""
    outcomes: Counter[str] = Counter()
    current = folder / f"{name}.current"
    failing: list[bytes] = []

    def attempt(value: bytes | str) -> None:
        data = _as_bytes(value)
        current.write_bytes(data)
        faulthandler.dump_traceback_later(_STUCK_S, exit=True, file=sys.stderr)
        began = time.monotonic()
        try:
            outcome = target.check(value)
            outcomes[outcome] += 1
            if outcome == "crashed" and outcomes[outcome] <= _MAX_FINDS:
                (folder / f"{name}-crashed-{outcomes[outcome]}.bin").write_bytes(data)
            _check_time(time.monotonic() - began)
        except BaseException:
            outcomes["FAILED"] += 1
            failing[:] = [data]  # the last one is the smallest
            raise

    finds, end = 0, time.monotonic() + seconds
    while time.monotonic() < end and finds < _MAX_FINDS:
        batch = settings(
            max_examples=_BATCH,
            derandomize=False,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        )
        try:
            seed(random.SystemRandom().getrandbits(64))(batch(given(target.inputs)(attempt)))()
        except KeyboardInterrupt:
            raise
        except BaseException:
            finds += 1
            kept = folder / f"{name}-{finds}.bin"
            kept.write_bytes(failing[0] if failing else b"")
            kept.with_suffix(".txt").write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")
            print(f"{name}: kept {kept}: {traceback.format_exc().strip().splitlines()[-1][:200]}", flush=True)
    faulthandler.cancel_dump_traceback_later()
    current.unlink(missing_ok=True)
    return outcomes, finds


def main() -> int:
    """Attacks each target for its share of the time; prints how many inputs were tried and what became of them."""
    parser = argparse.ArgumentParser(description="Attack every reader with damaged and hostile inputs.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--targets", default="", help="names, separated by commas; all when left out")
    parser.add_argument("--keep", type=Path, default=None, help="where failing inputs are kept")
    chosen = parser.parse_args()
    targets = build_targets()
    names = [name for name in chosen.targets.split(",") if name] or list(targets)
    unknown = sorted(set(names) - set(targets))
    if unknown:
        parser.error(f"no target {', '.join(unknown)}; there are {', '.join(targets)}")
    folder = chosen.keep or Path(mkdtemp(prefix="clearmargin-fuzz-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"Failing inputs are kept in {folder}", flush=True)
    _limit_memory()
    _silence_libraries()
    total, found = 0, 0
    for name in names:
        outcomes, finds = hunt(name, targets[name], chosen.minutes * 60 / len(names), folder)
        tried = outcomes.total()
        total, found = total + tried, found + finds
        said = ", ".join(f"{outcome} {number:,}" for outcome, number in outcomes.most_common())
        print(f"{name:<7} {tried:>9,} inputs: {said}", flush=True)
    print(f"total   {total:>9,} inputs, {found} found to break a reader", flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
