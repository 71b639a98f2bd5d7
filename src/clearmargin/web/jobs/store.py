"""Jobs on disk: accepted only when all of a job is there to stay, and found again by the next start.

A state folder holds `jobs.sqlite` and, for each job that is not ended, a folder below `files` with its images under
random names. A job's images go when it ends; its names and answers `keep_hours` later, or when it is deleted. Whatever
the process is killed at, the next one finds each job with all the rows that were added, and no file without a job.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from clearmargin.errors import UsageError
from clearmargin.files import disk_errors, make_folder
from clearmargin.web.jobs.schema import JOB_COLUMNS, JobFacts, JobFile, Wanted, facts_of, open_tables

_PAGE = 500
"""Rows that are held in memory at once, and read while nobody else can use the store."""
_AT_ONCE = 8
"""Files that are brought to the disk, or deleted, at once: one after the other takes forty times as long."""
_UNDER_WAY = "state IN ('queued', 'running')"


class UnknownJob(LookupError):
    """No job has this id (any more)."""


class TooManyJobs(Exception):
    """As many jobs as are allowed are waiting or under way."""


def state_folder() -> Path:
    """Where jobs are kept unless another folder is given."""
    return platformdirs.user_state_path("clearmargin") / "serve"


class JobStore:
    """The jobs of one state folder, which no other process can use meanwhile; safe to share between threads.

    Args:
        folder: made for its owner alone, where it is not there.
        keep_hours: how long the answers of an ended job are kept.
        clock: seconds since some fixed time that outlasts the process.

    Raises:
        UsageError: another server uses the folder, or what is in it cannot be used.
        DataError: the folder is not writable.
    """

    def __init__(self, folder: Path, *, keep_hours: float = 24, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self.heard: Callable[[str], None] = lambda _: None
        """Called with a job's id after each change of it, from the thread that made it."""
        self._keep_s, self._clock = keep_hours * 3600, clock
        self._lock = threading.RLock()
        with disk_errors(folder):
            make_folder(folder)
            folder.chmod(0o700)
            self._owner = FileLock(folder / "lock", mode=0o600)
            try:
                self._owner.acquire(timeout=0)
            except Timeout:
                raise UsageError(
                    f"{folder}: another server uses this folder. End it, or give another folder with --state."
                ) from None
            try:
                self._tables = open_tables(folder / "jobs.sqlite")
                self._files = folder / "files"
                self._files.mkdir(mode=0o700, exist_ok=True)
                self._recover()
                _reach_disk(folder)
            except BaseException:
                self._owner.release()
                raise

    def close(self) -> None:
        """Lets another process have the folder; the store must not be used afterwards."""
        with self._lock:
            self._tables.close()
            self._owner.release()

    def new_folder(self) -> tuple[str, Path]:
        """An id for a job to come, and the folder for its images; `accept` may and `drop_unaccepted` must follow."""
        job_id = secrets.token_urlsafe(16)
        folder = self.folder_of(job_id)
        folder.mkdir(mode=0o700)
        return job_id, folder

    def drop_unaccepted(self, job_id: str) -> None:
        """Deletes the images of a job to come that was not accepted; of one that was, nothing."""
        with self._lock:
            if self._tables.execute("SELECT 1 FROM jobs WHERE id = ?", (job_id,)).fetchone() is None:
                self._drop_folder(job_id)

    def _drop_folder(self, job_id: str) -> None:
        _remove(self.folder_of(job_id))

    def folder_of(self, job_id: str) -> Path:
        """Where the images of a job lie."""
        return self._files / job_id

    def accept(
        self, job_id: str, wanted: Wanted, files: Sequence[JobFile], *, head: str = "{}", max_jobs: int
    ) -> JobFacts:
        """The job, queued and on disk with its images, whatever happens to this process from here on.

        Args:
            job_id: given by `new_folder`.
            wanted: how its rows are made.
            files: in the order of the rows; each `file` lies in the job's folder.
            head: what is said of all rows at once, as JSON.
            max_jobs: how many may be waiting or under way, this one among them.

        Raises:
            TooManyJobs: it would be one too many; the folder is still the caller's.
            OSError: the disk is full.
        """
        folder = self.folder_of(job_id)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            deque(pool.map(_reach_disk, {folder / each.file for each in files}), maxlen=0)
        for above in (folder, self._files):
            _reach_disk(above)
        values = (wanted.model, wanted.bundle, wanted.gated, wanted.context, wanted.similar, wanted.prevalence)
        with self._change() as tables:
            if self._under_way() >= max_jobs:
                raise TooManyJobs
            number = tables.execute(
                "INSERT INTO jobs (id, total, head, model, bundle, gated, context, similar, prevalence) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (job_id, len(files), head, *values),
            ).lastrowid
            tables.executemany(
                "INSERT INTO files VALUES (?, ?, ?, ?, ?)",
                ((number, row, each.name, each.file, each.refusal) for row, each in enumerate(files)),
            )
            return self.job(job_id)

    def job(self, job_id: str) -> JobFacts:
        """The job as it stands.

        Raises:
            UnknownJob: there is none.
        """
        with self._lock:
            row = self._tables.execute(f"SELECT {JOB_COLUMNS} FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if row is None:
            raise UnknownJob(job_id)
        return facts_of(row)

    def counts(self) -> dict[str, int]:
        """How many jobs there are in each state that any is in."""
        with self._lock:
            return dict(self._tables.execute("SELECT state, COUNT(*) FROM jobs GROUP BY state"))

    def under_way(self) -> int:
        """How many jobs are waiting or running."""
        with self._lock:
            return self._under_way()

    def files(self, job_id: str) -> list[JobFile]:
        """The images of a job, in the order of its rows."""
        with self._lock:
            rows = self._tables.execute(
                "SELECT files.name, files.file, files.refusal FROM files JOIN jobs ON job = number "
                "WHERE id = ? ORDER BY row",
                (job_id,),
            )
            return [JobFile(*row) for row in rows]

    def head(self, job_id: str) -> str:
        """What is said of all rows of a job at once, as JSON."""
        with self._lock:
            (head,) = self._tables.execute("SELECT head FROM jobs WHERE id = ?", (job_id,)).fetchone() or ("{}",)
        return str(head)

    def start_next(self) -> JobFacts | None:
        """The job that was accepted first of those under way, running from now on; None when there is none."""
        with self._change() as tables:
            first = tables.execute(f"SELECT id FROM jobs WHERE {_UNDER_WAY} ORDER BY number LIMIT 1").fetchone()
            if first is None:
                return None
            (job_id,) = first
            self._set(job_id, "state = 'running'")
            job = self.job(job_id)
        self.heard(job_id)
        return job

    def add(self, job_id: str, first: int, answers: Sequence[str]) -> bool:
        """Keeps the answers to the rows from `first` on; those that are there stay. False: the job is not running.

        Args:
            job_id: of a running job.
            first: a row that was not added before, or one of those that were.
            answers: as JSON.
        """
        with self._change() as tables:
            found = tables.execute("SELECT number, done FROM jobs WHERE id = ? AND state = 'running'", (job_id,))
            number, done = found.fetchone() or (None, 0)
            if number is None:
                return False
            assert first <= done, "rows are added in order"
            fresh = list(enumerate(answers, start=first))[done - first :]
            tables.executemany("INSERT INTO answers VALUES (?, ?, ?)", ((number, *each) for each in fresh))
            if fresh:
                self._set(job_id, "done = ?", done + len(fresh))
        if fresh:
            self.heard(job_id)
        return True

    def finish(self, job_id: str) -> None:
        """Every row of a running job has its answer: it is done."""
        self._end(job_id, "state = 'done'", only="state = 'running' AND done = total")

    def fail(self, job_id: str, reason: str) -> None:
        """A job under way goes on no more; `reason` is one line for its client."""
        self._end(job_id, "state = 'failed', error = ?", reason)

    def release(self, job_id: str) -> None:
        """A running job waits again, with the answers that it has."""
        with self._change():
            self._set(job_id, "state = 'queued'", only="state = 'running'")
        self.heard(job_id)

    def delete(self, job_id: str) -> None:
        """Deletes names, images and answers; of a job under way it stays known that it was cancelled.

        Raises:
            UnknownJob: there is none.
        """
        with self._change() as tables:
            job = self.job(job_id)
            if job.is_ended:
                tables.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
            else:
                self._set(job_id, "state = 'cancelled', ended = ?", self._clock())
                self._forget(job_id)
        self._wipe()
        self._drop_folder(job_id)
        self.heard(job_id)

    def answers(self, job_id: str) -> Iterator[str]:
        """The answers of a job in the order of its rows, each as JSON; page by page, so that many cost no memory.

        Raises:
            UnknownJob: it was deleted meanwhile.
        """
        after, total = -1, self.job(job_id).done
        while True:
            with self._lock:
                page = self._tables.execute(
                    "SELECT row, answer FROM answers JOIN jobs ON job = number "
                    "WHERE id = ? AND row > ? ORDER BY row LIMIT ?",
                    (job_id, after, _PAGE),
                ).fetchall()
            for row, answer in page:
                yield answer
                after = row
            if len(page) < _PAGE:
                break
        if after + 1 < total:
            raise UnknownJob(job_id)

    def sweep(self) -> int:
        """Deletes the jobs that ended longer than `keep_hours` ago; gives how many there were."""
        with self._change() as tables:
            gone = tables.execute(
                "DELETE FROM jobs WHERE ended IS NOT NULL AND ended <= ? RETURNING id", (self._clock() - self._keep_s,)
            ).fetchall()
        if gone:
            self._wipe()
        for (job_id,) in gone:
            self._drop_folder(job_id)
            self.heard(job_id)
        return len(gone)

    def _recover(self) -> None:
        """What a process that was killed left half done is put right."""
        with self._change() as tables:
            died = tables.execute("SELECT id, done, total, died_at FROM jobs WHERE state = 'running'").fetchall()
            for job_id, done, total, died_at in died:
                if done != died_at:  # it came further than the last time, or it is the first time
                    self._set(job_id, "state = 'queued', died_at = ?", done)
                    continue
                reason = (
                    f"the server was killed twice while it worked on image {min(done + 1, total):,} of {total:,} or "
                    "one of the next; submit the others, and these one by one."
                )
                self._set(job_id, "state = 'failed', error = ?, ended = ?", reason, self._clock())
            alive = {job_id for (job_id,) in tables.execute(f"SELECT id FROM jobs WHERE {_UNDER_WAY}")}
        for folder in self._files.iterdir():
            if folder.name not in alive:
                _remove(folder)
        self.sweep()

    def _end(self, job_id: str, change: str, *values: object, only: str = _UNDER_WAY) -> None:
        with self._change():
            changed = self._set(job_id, f"{change}, ended = ?", *values, self._clock(), only=only)
        if changed:  # else it was cancelled meanwhile
            self.heard(job_id)
            self._drop_folder(job_id)

    def _set(self, job_id: str, change: str, *values: object, only: str = "1") -> bool:
        done = self._tables.execute(
            f"UPDATE jobs SET {change}, changes = changes + 1 WHERE id = ? AND {only}", (*values, job_id)
        )
        return done.rowcount == 1

    def _forget(self, job_id: str) -> None:
        for table in ("files", "answers"):
            self._tables.execute(f"DELETE FROM {table} WHERE job = (SELECT number FROM jobs WHERE id = ?)", (job_id,))

    def _wipe(self) -> None:
        """What was deleted is in the log of the tables no more; the tables themselves overwrite it."""
        with self._lock:
            self._tables.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _under_way(self) -> int:
        return int(self._tables.execute(f"SELECT COUNT(*) FROM jobs WHERE {_UNDER_WAY}").fetchone()[0])

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """All of the changes made inside, or none, and on disk."""
        with self._lock, _full_disk():
            self._tables.execute("BEGIN IMMEDIATE")
            try:
                yield self._tables
                self._tables.execute("COMMIT")
            except BaseException:
                if self._tables.in_transaction:  # on a full disk SQLite may have rolled back by itself
                    self._tables.execute("ROLLBACK")
                raise


@contextmanager
def _full_disk() -> Iterator[None]:
    """SQLite's words for a full or broken disk become the system's."""
    try:
        yield
    except sqlite3.OperationalError as error:
        code = {"SQLITE_FULL": errno.ENOSPC, "SQLITE_READONLY": errno.EROFS}.get(error.sqlite_errorname)
        if code is None and error.sqlite_errorname.startswith("SQLITE_IOERR"):
            code = errno.EIO
        if code is None:
            raise
        raise OSError(code, os.strerror(code)) from error


def _remove(folder: Path) -> None:
    with suppress(OSError), ThreadPoolExecutor(_AT_ONCE) as pool:
        deque(pool.map(Path.unlink, folder.iterdir()), maxlen=0)
    shutil.rmtree(folder, ignore_errors=True)


def _reach_disk(path: Path) -> None:
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":  # where folders cannot be opened, and need not be
        return
    handle = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
