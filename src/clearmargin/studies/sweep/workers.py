"""Processes of its own that a sweep starts (`--jobs`): plain programs, started by name, which need no guard.

Each is given the setup and the folder on its standard input, and ends when that is closed: a sweep that is killed
leaves none behind. They stop as training does, between two batches, with everything saved.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType
from typing import IO

from clearmargin.errors import ClearmarginError, DataError, Interrupted
from clearmargin.files import disk_errors
from clearmargin.studies.sweep.folder import open_material
from clearmargin.studies.sweep.setup import Setup, read_setup
from clearmargin.studies.sweep.study import Study
from clearmargin.studies.sweep.work import WAIT_S, Announcer, work
from clearmargin.training.stop import StopRequest
from clearmargin.types import Listener

_STOP_S = 60
_MOST_RESTARTS = 5
_OURS = 3
"""How a process ends that raised one of our errors; its last line is the message."""


class Worker:
    """A process that takes trials of the sweep in `out`."""

    def __init__(self, out: Path, setup: Setup, threads: int) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `end`)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "clearmargin.studies.sweep.workers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            env={"OMP_NUM_THREADS": str(threads)} | os.environ,
            start_new_session=True,  # Ctrl-C comes to the process that leads, which passes it on once
        )
        assert self.process.stdin is not None
        self.process.stdin.write(f"{out.absolute()}\n{setup.to_json()}\n".encode())
        self.process.stdin.flush()

    def end(self) -> str:
        """Waits for the end, by force where it does not come; what the process said last."""
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        self._errors.close()
        return next((line for line in reversed(lines) if line.strip()), "")


def work_together(study: Study, setup: Setup, jobs: int, listener: Listener) -> None:
    """Lets so many processes take trials until none is left; a process that was killed is started again.

    Raises:
        Interrupted: SIGINT or SIGTERM came; what was trained is kept.
        DataError: one cannot go on, as on a full disk; or they keep being killed, as where the memory is too small.
        RuntimeError: one ended with an error of ours.
    """
    threads = max(1, (os.cpu_count() or 1) // jobs)
    announcer, restarts = Announcer(study, listener), 0
    with StopRequest() as stop:
        workers = [Worker(study.out, setup, threads) for _ in range(jobs)]
        try:
            while workers:
                time.sleep(WAIT_S)
                announcer.tell()
                if stop.requested:
                    raise Interrupted(f"{study.out}: stopped.")
                for worker in [each for each in workers if each.process.poll() is not None]:
                    workers.remove(worker)
                    code, said = worker.process.returncode, worker.end()
                    if code == _OURS:
                        raise DataError(said)
                    if code > 0:
                        raise RuntimeError(f"a process of the sweep ended with {code}: {said}")
                    if code < 0:
                        restarts += 1
                        if restarts > _MOST_RESTARTS:
                            raise DataError(
                                f"{study.out}: processes of the sweep keep being killed (signal {-code}). "
                                "Go on with --resume and fewer --jobs, which need less memory."
                            )
                        listener.note(f"A process of the sweep was killed (signal {-code}); another takes its place.")
                        study.bury()
                        workers.append(Worker(study.out, setup, threads))
        finally:
            for worker in workers:
                worker.process.terminate()
            for worker in workers:
                worker.end()
            study.bury()
    announcer.tell()


def main() -> None:
    """What a worker does."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = Path(sys.stdin.readline().rstrip("\n"))
    setup = read_setup(sys.stdin.readline())
    threading.Thread(target=_end_with_the_other, daemon=True).start()
    try:
        with disk_errors(out):
            study = Study(out, setup.space, setup.plan, setup.base.seed)
            work(study, setup, open_material(out, study.facts["packed"]), Listener())
    except (Interrupted, KeyboardInterrupt):
        sys.exit(0)
    except ClearmarginError as error:
        sys.stderr.write(str(error))  # to the process that started it, which raises it again
        sys.exit(_OURS)


def _end_with_the_other() -> None:
    """Ends this process when the one that started it is gone."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
