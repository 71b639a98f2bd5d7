"""`clearmargin serve` as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx


@dataclass(frozen=True)
class Server:
    """A running server; `errors` is the file that its standard error goes to."""

    process: subprocess.Popen[bytes]
    url: str
    errors: Path

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Its exit code after a signal."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def serving(folder: Path, *arguments: object, **environment: str) -> Iterator[Server]:
    """A server with these arguments on a free port, its state and its temporary files below `folder`."""
    for name in ("state", "tmp"):
        (folder / name).mkdir(exist_ok=True, parents=True)
    errors = folder / "errors.txt"
    command = [sys.executable, "-m", "clearmargin", "serve", *map(str, arguments), "--port", "0"]
    with errors.open("wb") as stream:
        process = subprocess.Popen(
            [*command, "--state", str(folder / "state")],
            stdout=subprocess.DEVNULL,
            stderr=stream,
            env=os.environ | {"TMPDIR": str(folder / "tmp")} | environment,
        )
    try:
        while "Serving" not in errors.read_text():
            assert process.poll() is None, errors.read_text()
            time.sleep(0.02)
        yield Server(process, errors.read_text().split()[-1], errors)
    finally:
        process.kill()
        process.wait()
