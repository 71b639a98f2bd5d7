"""The tables of the jobs, what stands in them, and how a file of them is opened.

Names that clients gave their files are data of patients: they stand in these tables only, a deleted row is overwritten
with zeros, and the file is its owner's alone.
"""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clearmargin.errors import UsageError

State = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")

_VERSION = 1
_TABLES = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL DEFAULT 'queued',
    model TEXT NOT NULL,
    bundle TEXT NOT NULL,
    gated INTEGER NOT NULL,
    context INTEGER NOT NULL,
    similar INTEGER NOT NULL,
    prevalence REAL,
    head TEXT NOT NULL,
    total INTEGER NOT NULL,
    done INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    changes INTEGER NOT NULL DEFAULT 1,
    died_at INTEGER NOT NULL DEFAULT -1,
    ended REAL
);
CREATE TABLE files (
    job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    row INTEGER NOT NULL,
    name TEXT NOT NULL,
    file TEXT NOT NULL,
    refusal TEXT,
    PRIMARY KEY (job, row)
) WITHOUT ROWID;
CREATE TABLE answers (
    job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    row INTEGER NOT NULL,
    answer TEXT NOT NULL,
    PRIMARY KEY (job, row)
) WITHOUT ROWID;
"""
JOB_COLUMNS = "id, state, done, total, changes, error, model, bundle, gated, context, similar, prevalence"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the rows of a job depend on, besides its images."""

    model: str
    """The name under which the bundle is served."""
    bundle: str
    """The SHA-256 of the bundle."""
    gated: bool
    context: bool = True
    similar: int = 0
    prevalence: float | None = None


@dataclass(frozen=True, slots=True)
class JobFile:
    """One image of a job: what the client calls it, its file in the job's folder, and why it is refused unseen."""

    name: str
    file: str
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class JobFacts:
    """A job as it stands; `changes` goes up with each of its changes, over restarts too."""

    id: str
    state: State
    done: int
    total: int
    changes: int
    error: str | None
    wanted: Wanted

    @property
    def is_ended(self) -> bool:
        return self.state in ENDED


def facts_of(row: tuple[object, ...]) -> JobFacts:
    """The job of a row of JOB_COLUMNS."""
    job_id, state, done, total, changes, error, model, bundle, gated, context, similar, prevalence = row
    wanted = Wanted(model, bundle, bool(gated), bool(context), similar, prevalence)  # type: ignore[arg-type]
    return JobFacts(job_id, state, done, total, changes, error, wanted)  # type: ignore[arg-type]


def open_tables(path: Path) -> sqlite3.Connection:
    """A connection to the tables at `path`, which are made where there are none; to be used by one thread at a time.

    What is committed has reached the disk. Transactions are begun and ended by whoever uses the connection.

    Raises:
        UsageError: the file is damaged, or was written by a later version.
        OSError: it cannot be made.
    """
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0), 0o600))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise UsageError(
            f"{path}: cannot be used as the list of jobs ({error}). Move it away, or give another folder with --state."
        ) from None
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        connection.executescript(f"BEGIN IMMEDIATE;{_TABLES}PRAGMA user_version={_VERSION};COMMIT;")
    elif version != _VERSION:
        raise sqlite3.DatabaseError(f"written by a later version: schema {version}, known is {_VERSION}")
    if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise sqlite3.DatabaseError("damaged")
