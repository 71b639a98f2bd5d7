"""The answers of a job as text, piece by piece: JSON, JSON lines, or CSV as `clearmargin predict` has it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

from clearmargin.predict.predictor import PREDICTION_KEYS, SIMILAR_KEY
from clearmargin.web.jobs.schema import Wanted

Format = Literal["json", "jsonl", "csv"]
MEDIA_TYPE: dict[Format, str] = {
    "json": "application/json",
    "jsonl": "application/jsonl",
    "csv": "text/csv; charset=utf-8",
}
PREVALENCE_KEY = "at_prevalence"


def columns_of(wanted: Wanted) -> tuple[str, ...]:
    """The columns of a table of answers."""
    similar = (SIMILAR_KEY,) if wanted.similar else ()
    return (*PREDICTION_KEYS, *similar, *((PREVALENCE_KEY,) if wanted.prevalence is not None else ()))


def write_answers(answers: Iterable[str], form: Format, *, head: str, columns: Sequence[str]) -> Iterator[str]:
    """The text, an answer at a time.

    Args:
        answers: each as JSON, in order.
        form: of the text.
        head: a JSON object of what is said of all answers at once; only one JSON document has it.
        columns: of a table.
    """
    if form == "jsonl":
        for answer in answers:
            yield f"{answer}\n"
    elif form == "csv":
        yield from _table(answers, columns)
    else:
        yield f"{json.dumps(json.loads(head))[:-1]}, " + '"predictions": ['
        for number, answer in enumerate(answers):
            yield answer if number == 0 else f", {answer}"
        yield "]}"


class _Echo:
    """What `csv` writes to, to get its line back."""

    @staticmethod
    def write(text: str) -> str:
        return text


def _table(answers: Iterable[str], columns: Sequence[str]) -> Iterator[str]:
    write: Callable[[Iterable[object]], Any] = csv.writer(_Echo(), lineterminator="\n").writerow
    yield write(columns)
    for answer in answers:
        row = json.loads(answer)
        if row.get(SIMILAR_KEY) is not None:
            row[SIMILAR_KEY] = json.dumps(row[SIMILAR_KEY])
        yield write(row.get(column) for column in columns)
