"""Predictions as text: lines for standard output, or a file that an interrupted job goes on with.

A file of answers holds whole rows up to where the job was stopped, and perhaps a part of one. Beside it lies what the
answers depend on (bundle, options, list of inputs), so that no file is ever completed by something else.
"""

from __future__ import annotations

import csv
import json
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TextIO, get_args

from clearmargin.cli.inputs import Inputs
from clearmargin.errors import DataError, UsageError, one_line
from clearmargin.files import make_folder, write_json
from clearmargin.images.file_names import written_name
from clearmargin.predict.predictor import PREDICTION_KEYS, SIMILAR_KEY, prediction_row
from clearmargin.predict.similar import similar_words
from clearmargin.types import Decision, Prediction

Format = Literal["table", "json", "csv"]
_DECISIONS: tuple[str, ...] = get_args(Decision)
_FORMAT_OF_SUFFIX: dict[str, Format] = {".csv": "csv", ".json": "json", ".jsonl": "json"}
_WHAT = {"bundle": "another bundle", "options": "other options", "format": "another format", "images": "other inputs"}


def format_of(out: Path | None, output: Format | None) -> Format:
    """The format that was asked for, or the one that the file's name says.

    Raises:
        UsageError: a file of a format that none is written in, or whose name says another one than was asked for.
    """
    if out is None:
        return output or "table"
    named = _FORMAT_OF_SUFFIX.get(out.suffix.lower())
    chosen = output or named
    if chosen is None or chosen == "table":
        raise UsageError(f"--out {out}: write a .csv, .json or .jsonl file, or give --format csv or json.")
    if named not in (None, chosen):
        raise UsageError(f"--out {out}: its name says {named}, --format says {chosen}. Leave one of them out.")
    return chosen


def write_predictions(
    file: TextIO,
    predictions: Iterable[Prediction],
    output: Format,
    *,
    every: int,
    header: bool = True,
    similar: bool = False,
) -> None:
    """Writes the predictions as they come, `every` so many at once.

    Args:
        file: to write to; flushed each time.
        predictions: in order.
        output: the format.
        every: how many are lost at most when the program is killed.
        header: begin with the line that names the columns, where the format has one.
        similar: the predictions bring similar images.
    """
    lines = _LINES[output](predictions, _columns(similar=similar))
    head = next(lines)
    if header:
        file.write(head)
        file.flush()
    while block := list(islice(lines, every)):
        file.write("".join(block))
        file.flush()


@dataclass(frozen=True, slots=True)
class Job:
    """What a file of answers depends on."""

    bundle: str
    """The SHA-256 of the bundle."""
    options: Mapping[str, Any]
    format: Format
    inputs: Inputs

    def describe(self) -> dict[str, Any]:
        """As it is written beside the answers."""
        images = {"n": len(self.inputs), "sha256": self.inputs.sha256}
        return {"schema": 1, "bundle": self.bundle, "options": self.options, "format": self.format, "images": images}


class AnswerFile:
    """A file of answers that is begun, or gone on with: `rows` are there, `counts` of them by decision.

    Args:
        path: of the file.
        job: what is to be written.
        resume: go on with what is there.

    Raises:
        UsageError: there is a file already, or it is another job's.
        DataError: its rows are not those of the inputs.
    """

    def __init__(self, path: Path, job: Job, *, resume: bool) -> None:
        self._path, self._format, self._inputs = path, job.format, job.inputs
        self._similar = job.options.get("similar") is not None
        self._ends, self._decided = array("q"), array("b")
        self._header_end = 0
        beside, description = job_file(path), job.describe()
        if path.exists():
            if not resume:
                raise UsageError(f"{path}: is there already. Go on with it with --resume, or give another --out.")
            _check_same_job(path, beside, description)
            self._read()
        else:
            make_folder(path.absolute().parent)
            write_json(beside, description)

    @property
    def rows(self) -> int:
        """Whole rows of the file."""
        return len(self._ends)

    @property
    def counts(self) -> Counter[str]:
        """How many of them have each decision."""
        return Counter(_DECISIONS[number] for number in self._decided)

    def cut(self, rows: int) -> None:
        """Keeps so many rows; what follows, a part of one too, is written again."""
        del self._ends[rows:], self._decided[rows:]
        if self._path.exists():
            os.truncate(self._path, self._ends[-1] if rows else self._header_end)

    def append(self, predictions: Iterable[Prediction], *, every: int) -> None:
        """Writes the predictions that follow, see `write_predictions`."""
        with self._path.open("a", encoding="utf-8", errors="backslashreplace", newline="") as file:
            header = file.tell() == 0
            write_predictions(file, predictions, self._format, every=every, header=header, similar=self._similar)

    def _read(self) -> None:
        wanted = iter(self._inputs)
        for number, (line, end) in enumerate(_whole_rows(self._path, quoted=self._format == "csv")):
            if self._format == "csv" and number == 0:
                self._header_end = end
                continue
            record = next(wanted, None)
            row = _parse(line, self._format, _columns(similar=self._similar))
            is_there = record is not None and written_name(row.get("path", "")) == written_name(record.path)
            if not is_there or row["decision"] not in _DECISIONS:
                raise DataError(
                    f"{self._path}: row {len(self._ends) + 1:,} is not of the image that stands there in the inputs; "
                    "the file was changed. Give another --out."
                )
            self._ends.append(end)
            self._decided.append(_DECISIONS.index(row["decision"]))


def job_file(path: Path) -> Path:
    """Where it is written what a file of answers was begun with."""
    return path.with_name(f"{path.name}.job.json")


def count_words(counts: Mapping[str, int]) -> str:
    """How many there are of each decision, those that there are none of left out.

    >>> count_words({"abstain": 1, "benign": 1200, "refused": 0})
    '1,200 benign, 1 abstain'
    """
    return ", ".join(f"{counts[word]:,} {word}" for word in _DECISIONS if counts.get(word))


def _check_same_job(path: Path, beside: Path, wanted: Mapping[str, Any]) -> None:
    try:
        there = json.loads(beside.read_text(encoding="utf-8"))
        other = next((key for key in _WHAT if there[key] != wanted[key]), None)
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(
            f"{path}: there is no {beside.name} beside it that says what it was begun with. Give another --out."
        ) from None
    if other == "options":
        what = _options_changed(there["options"], wanted["options"])
    elif other is not None:
        what = _WHAT[other]
    else:
        return
    raise UsageError(f"{path}: was begun with {what}, so it is not gone on with. Give another --out.")


def _options_changed(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What an option was and is now, as it is written on the command line.

    >>> _options_changed({"gate": True, "frame": None}, {"gate": False, "frame": 3})
    '--gate, not --no-gate; --frame: none, not 3'
    """

    def word(name: str, value: object) -> str:
        if isinstance(value, bool):
            return f"--{name}" if value else f"--no-{name}"
        return "none" if value is None else str(value)

    def change(name: str) -> str:
        old, new = there.get(name), wanted[name]
        label = "" if isinstance(new, bool) else f"--{name}: "
        return f"{label}{word(name, old)}, not {word(name, new)}"

    return "; ".join(change(name) for name in wanted if there.get(name) != wanted[name])


def _whole_rows(path: Path, *, quoted: bool) -> Iterator[tuple[str, int]]:
    """Each whole row and where it ends in bytes; `quoted` where a quoted line break is not a row's end."""
    row, end, is_open = b"", 0, False
    with path.open("rb") as file:
        for line in file:
            row += line
            is_open ^= quoted and line.count(b'"') % 2 == 1
            if line.endswith(b"\n") and not is_open:
                end += len(row)
                yield row.decode("utf-8", "replace"), end
                row = b""


def _columns(*, similar: bool) -> Sequence[str]:
    return (*PREDICTION_KEYS, SIMILAR_KEY) if similar else PREDICTION_KEYS


def _parse(line: str, output: Format, columns: Sequence[str]) -> dict[str, str]:
    try:
        if output == "csv":
            return dict(zip(columns, next(csv.reader([line])), strict=True))
        row: dict[str, str] = json.loads(line)
        return {"path": row["path"], "decision": row["decision"]}
    except (ValueError, KeyError, TypeError, csv.Error, StopIteration):
        return {}


def _json_lines(predictions: Iterable[Prediction], _columns: Sequence[str]) -> Iterator[str]:
    yield ""
    for prediction in predictions:
        yield json.dumps(prediction_row(prediction)) + "\n"


class _Echo:
    """What `csv` writes to, to get its line back."""

    @staticmethod
    def write(text: str) -> str:
        return text


def _csv_lines(predictions: Iterable[Prediction], columns: Sequence[str]) -> Iterator[str]:
    write: Callable[[Iterable[object]], Any] = csv.writer(_Echo(), lineterminator="\n").writerow
    yield write(columns)
    for prediction in predictions:
        row = prediction_row(prediction)
        if SIMILAR_KEY in row:
            row[SIMILAR_KEY] = json.dumps(row[SIMILAR_KEY])
        yield write(row.values())


def _table_lines(predictions: Iterable[Prediction], _columns: Sequence[str]) -> Iterator[str]:
    yield f"{'decision':<10} {'probability':>11}  path\n"
    for prediction in predictions:
        chance = "-" if prediction.probability is None else f"{prediction.probability:.4f}"
        reason = f"  ({prediction.reason})" if prediction.reason else ""
        similar = f"{'':<24}{one_line(similar_words(prediction.similar))}\n" if prediction.similar else ""
        yield f"{prediction.decision:<10} {chance:>11}  {one_line(prediction.record.path)}{one_line(reason)}\n{similar}"


_LINES: dict[Format, Callable[[Iterable[Prediction], Sequence[str]], Iterator[str]]] = {
    "table": _table_lines,
    "json": _json_lines,
    "csv": _csv_lines,
}
