"""`clearmargin serve` as a process of its own, which a test may kill."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[3] / "src"
_SERVE = "import sys; from clearmargin.cli import main; sys.exit(main(sys.argv[1:]))"


class RealServer:
    """A server that answers; `url` is where."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url = process, url

    def kill(self) -> None:
        """As a crash or the kernel would."""
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        """As whoever runs it would; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def decoders(self) -> list[int]:
        """The processes that decode images for it."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int(re.sub(r".*\) ", "", (folder / "stat").read_text()).split()[1])
                command = (folder / "cmdline").read_bytes()
            except OSError:  # it ended
                continue
            if parent == self.process.pid and b"clearmargin.images.child" in command:
                found.append(int(folder.name))
        return found


@contextmanager
def real_server(bundle: Path, state: Path, *options: str, before: str = "") -> Iterator[RealServer]:
    """A server over the bundle, dead at the end.

    Args:
        bundle: that is served.
        state: the folder for its jobs.
        options: of the command line.
        before: code to run in its process first.
    """
    arguments: Sequence[str] = ("serve", str(bundle), "--port", "0", "--state", str(state), *options)
    temporary = state / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-c", f"{before}\n{_SERVE}", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(SOURCE), "TMPDIR": str(temporary)},
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.match(r"Serving .* on (http://\S+)", line):
                yield RealServer(process, found[1])
                return
        raise AssertionError("it did not start")
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()
