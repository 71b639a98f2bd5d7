"""The child's side of `isolate.py`: decodes what comes through its standard input until that is closed.

It may use a bounded amount of memory, write no file, and leave no dump of its memory behind.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any, BinaryIO, TypedDict

from clearmargin.errors import ImageError
from clearmargin.images.limits import Limits, Window
from clearmargin.images.read import decode_image

LENGTH_BYTES = 4
"""Of the length, big-endian, that stands before each question and each answer, which are JSON."""
_MEMORY_BYTES = 4 << 30


class Question(TypedDict):
    """What is asked; the bytes of the file follow, as many as `bytes` says."""

    bytes: int
    limits: dict[str, Any]
    window: Window
    frame: int | None


def _limit_self() -> None:
    try:
        import resource  # noqa: PLC0415  (not on Windows)
    except ImportError:
        return
    for what, most in (("RLIMIT_AS", _MEMORY_BYTES), ("RLIMIT_FSIZE", 0), ("RLIMIT_CORE", 0)):
        if hasattr(resource, what):
            _, hard = resource.getrlimit(getattr(resource, what))
            allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(getattr(resource, what), (allowed, allowed))


def _answer(question: Question, data: bytes) -> tuple[dict[str, object], bytes]:
    limits = Limits(**question["limits"])
    try:
        image = decode_image(data, "image", limits, window=question["window"], frame=question["frame"], isolated=False)
    except ImageError as error:
        return {"kind": error.kind, "reason": error.reason}, b""
    except MemoryError:
        return {"kind": "too_large", "reason": "needs more memory than an image may"}, b""
    pixels = image.pixels
    return {"shape": pixels.shape, "bits": 8 * pixels.itemsize, "format": image.format}, pixels.tobytes()


def main() -> None:
    """Answers one question after the other; what libraries print goes nowhere."""
    questions: BinaryIO = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes the pipe
    _limit_self()
    while head := questions.read(LENGTH_BYTES):
        question: Question = json.loads(questions.read(int.from_bytes(head, "big")))
        data = questions.read(question["bytes"])
        facts, pixels = _answer(question, data)
        text = json.dumps(facts | {"bytes": len(pixels)}).encode()
        answers.write(len(text).to_bytes(LENGTH_BYTES, "big") + text)
        answers.write(pixels)
        answers.flush()


if __name__ == "__main__":
    main()
