"""Decoding in a child process, which may crash, hang or eat its memory without harm.

A few children are kept and fed one file after the other through pipes (`child.py` is their side). One that
takes longer than `limits.max_seconds`, dies twice or answers nonsense is killed, and the file is refused; the
next file gets a new child. Children are plain programs, not forks: nothing of this process is in them, and a
script needs no guard.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from clearmargin.errors import ImageError
from clearmargin.images.child import LENGTH_BYTES, Question
from clearmargin.images.limits import Limits, Pixels, Window

_MAX_ANSWER_BYTES = 1 << 16
_PACKAGES = str(Path(__file__).parents[2])


class _Child:
    """One decoding process; it does one file at a time."""

    def __init__(self) -> None:
        paths = [_PACKAGES, os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "clearmargin.images.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )

    def ask(self, question: Question, data: bytes, max_bytes: int) -> tuple[dict[str, Any], bytes] | None:
        """The answer and its pixels, or None when the child died; blocks until then."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        head = json.dumps(question).encode()
        try:
            self._process.stdin.write(len(head).to_bytes(LENGTH_BYTES, "big") + head)
            self._process.stdin.write(data)
            self._process.stdin.flush()
            length = int.from_bytes(self._read(LENGTH_BYTES), "big")
            if length > _MAX_ANSWER_BYTES:
                return None
            answer: dict[str, Any] = json.loads(self._read(length))
            size = int(answer["bytes"])
            return (answer, self._read(size)) if 0 <= size <= max_bytes else None
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            return None

    def _read(self, size: int) -> bytes:
        assert self._process.stdout is not None
        data = self._process.stdout.read(size)
        if len(data) < size:
            raise EOFError
        return data

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Ends the process; a thread that waits for its answer gets None."""
        self._process.kill()

    def bury(self) -> None:
        """Ends the process and waits until it and its pipes are gone."""
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what was not yet written to a dead child
                if pipe is not None:
                    pipe.close()
        self._process.wait()


class _Watch:
    """Whether a child may still take its time; `was_late` when it was killed because it took too long."""

    def __init__(self, child: _Child, deadline: float) -> None:
        self.was_late = False
        self.deadline = deadline
        self._child, self._done, self._lock = child, False, threading.Lock()

    def end(self) -> None:
        """Time is over."""
        with self._lock:
            if not self._done:
                self.was_late = True
                self._child.kill()

    def stop(self) -> None:
        """From here on the child lives, unless it was killed before."""
        with self._lock:
            self._done = True


class _Watchman:
    """One thread that ends the watches whose time is over; a thread each would cost more than a small picture."""

    def __init__(self) -> None:
        self._watches: set[_Watch] = set()
        self._changed = threading.Condition()
        self._wakes_at = -math.inf
        self._thread: threading.Thread | None = None

    def watch(self, child: _Child, timeout_s: float) -> _Watch:
        """A watch on the child, from now."""
        watch = _Watch(child, time.monotonic() + timeout_s)
        with self._changed:
            self._watches.add(watch)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True, name="decoders")
                self._thread.start()
            if watch.deadline < self._wakes_at:
                self._changed.notify()
        return watch

    def stop(self, watch: _Watch) -> None:
        """The child has answered or is gone."""
        watch.stop()
        with self._changed:
            self._watches.discard(watch)

    def _run(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                over = [watch for watch in self._watches if watch.deadline <= now]
                for watch in over:
                    self._watches.discard(watch)
                    watch.end()
                self._wakes_at = min((watch.deadline for watch in self._watches), default=math.inf)
                self._changed.wait(None if self._wakes_at == math.inf else self._wakes_at - now)


class _Children:
    """The children that are waiting for work; as many work at once as there are cores."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """As if no child had been started: after a fork, when all are another process's."""
        self._idle: list[_Child] = []
        self._watchman = _Watchman()
        self._lock = threading.Lock()
        self._free = threading.BoundedSemaphore(os.cpu_count() or 1)

    def ask(
        self, question: Question, data: bytes, *, max_bytes: int, timeout_s: float
    ) -> tuple[dict[str, Any], bytes] | str:
        """The answer and its pixels, or in words what became of the child.

        A child that dies may have been killed for what another file or program did, so the file gets a second one.
        """
        with self._free:
            answer = self._ask_one(question, data, max_bytes, timeout_s) or self._ask_one(
                question, data, max_bytes, timeout_s
            )
        return "its decoder crashed" if answer is None else answer

    def _ask_one(
        self, question: Question, data: bytes, max_bytes: int, timeout_s: float
    ) -> tuple[dict[str, Any], bytes] | str | None:
        child = self._take()
        watch, answer = self._watchman.watch(child, timeout_s), None
        try:
            answer = child.ask(question, data, max_bytes)
        finally:
            self._watchman.stop(watch)
            if answer is None or watch.was_late:
                child.bury()
            else:
                with self._lock:
                    self._idle.append(child)
        return f"its decoder took longer than {timeout_s:g} s" if watch.was_late else answer

    def _take(self) -> _Child:
        with self._lock:
            while self._idle:
                child = self._idle.pop()
                if child.lives:
                    return child
                child.bury()
        return _Child()

    def close(self) -> None:
        """Ends the idle children."""
        with self._lock:
            for child in self._idle:
                child.bury()
            self._idle.clear()


_children = _Children()
atexit.register(_children.close)
if hasattr(os, "register_at_fork"):  # the pipes stay with the process that made them
    os.register_at_fork(after_in_child=_children.forget)


def decode_isolated(
    data: bytes, name: str, limits: Limits = Limits(), *, window: Window = "stored", frame: int | None = None
) -> tuple[Pixels, str]:
    """The pixels, uint8 or uint16 (H, W, 1 or 3), and the format, decoded in a child process.

    Raises:
        ImageError: as `read.decode_image` says, or `unreadable` when the child crashed, hung or ran out of memory.
    """
    question: Question = {"bytes": len(data), "limits": asdict(limits), "window": window, "frame": frame}
    answer = _children.ask(question, data, max_bytes=6 * limits.max_pixels, timeout_s=limits.max_seconds)
    if isinstance(answer, str):
        raise ImageError("unreadable", name, answer)
    facts, raw = answer
    if "kind" in facts:
        raise ImageError(str(facts["kind"]), name, str(facts["reason"]))
    try:
        pixels = np.frombuffer(raw, np.uint16 if facts["bits"] == 16 else np.uint8).reshape(facts["shape"])
    except (ValueError, TypeError, KeyError):
        raise ImageError("unreadable", name, "its decoder crashed") from None
    return pixels, str(facts["format"])
