"""Whether this installation can do its work: CHECKS, one after the other, each by itself.

A check looks at the real thing (decodes an image, exports a network, writes into the cache) where a look costs little,
and changes nothing that stays. Whatever it raises is a failed check. `ok` needs nothing, `warning` works with a
drawback, `failed` does not work; the last two say how to mend it. What heavy libraries a check needs it imports itself,
so that a broken one is found by the check that is about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from clearmargin.doctor.decoding import check_decoders
from clearmargin.doctor.machine import (
    check_cache,
    check_cores,
    check_file_names,
    check_key,
    check_memory,
    check_network,
    check_open_files,
    check_port,
    check_python,
)
from clearmargin.doctor.outcome import Outcome, failed
from clearmargin.doctor.software import check_drawing, check_extras, check_libraries, check_onnxruntime, check_torch
from clearmargin.doctor.whole import check_whole
from clearmargin.errors import ClearmarginError, one_line

__all__ = ["CHECKS", "Outcome", "run_checks"]

CHECKS: dict[str, Callable[[], Outcome]] = {
    "python": check_python,
    "libraries": check_libraries,
    "extras": check_extras,
    "torch": check_torch,
    "onnxruntime": check_onnxruntime,
    "decoders": check_decoders,
    "drawing": check_drawing,
    "whole": check_whole,
    "cache": check_cache,
    "memory": check_memory,
    "cores": check_cores,
    "open files": check_open_files,
    "file names": check_file_names,
    "key": check_key,
    "port": check_port,
    "network": check_network,
}
_WAITING = "libraries"
"""Waits for a process of its own, and so can begin first."""
_LONGEST = 300


def run_checks(checks: Mapping[str, Callable[[], Outcome]] = CHECKS) -> Iterator[tuple[str, Outcome]]:
    """The name and outcome of each check, in their order, as they are done."""
    with ThreadPoolExecutor(1) as alongside:
        begun = {name: alongside.submit(_run, check) for name, check in checks.items() if name == _WAITING}
        late: dict[str, Outcome] = {}
        for name, check in checks.items():
            if name not in begun:
                late[name] = _run(check)
        for name in checks:
            yield name, begun[name].result() if name in begun else late[name]


def _run(check: Callable[[], Outcome]) -> Outcome:
    try:
        return check()
    except ClearmarginError as error:
        return failed(str(error), "See what it says; install Clearmargin anew if that is no help.")
    except Exception as error:
        text = one_line(" ".join(f"{type(error).__name__}: {error}".split()))[:_LONGEST]
        return failed(text, "Install Clearmargin anew into an environment of its own (docs/install.md).")
