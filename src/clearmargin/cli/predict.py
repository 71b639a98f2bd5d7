"""`clearmargin predict`: decisions on files, folders, globs and manifests. Never imports torch or pandas."""

from __future__ import annotations

import csv
import glob
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from clearmargin.errors import one_line

if TYPE_CHECKING:
    from clearmargin.types import Prediction, Record


def predict(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder, or a run folder.")],
    paths: Annotated[list[str], typer.Argument(metavar="PATH…", help="Images, folders, globs or manifests (CSV).")],
    output: Annotated[
        Literal["table", "json", "csv"], typer.Option("--format", help="json is one object a line.")
    ] = "table",
) -> None:
    """Decide on images with a trained bundle; exit code 5 when every input was refused."""
    from clearmargin.errors import AllRefused
    from clearmargin.predict.predictor import load_bundle

    predictor = load_bundle(bundle)
    if predictor.bundle.model.lineage.stamp:
        print(f"Note: this model's figures come from an {predictor.bundle.model.lineage.stamp}.", file=sys.stderr)
    total, refused = 0, 0
    write = {"table": _write_table, "json": _write_json, "csv": _write_csv}[output]

    def counted() -> Iterator[Prediction]:
        nonlocal total, refused
        for prediction in predictor.predict_records(find_records(paths)):
            total += 1
            refused += prediction.decision == "refused"
            yield prediction

    write(counted())
    if refused:
        print(f"{refused:,} of {total:,} images were refused, each with its reason.", file=sys.stderr)
    if refused == total:
        raise AllRefused(f"every input was refused ({total:,} in all); see the reasons above.")


def find_records(paths: Iterable[str]) -> list[Record]:
    """The images that the arguments mean, in order; folders are searched through.

    Raises:
        DataError: a path is not there, a glob or folder has no image, or a manifest has no column `path`.
    """
    records: list[Record] = []
    for path in paths:
        records += _records_of_path(path)
    return records


def _records_of_path(path: str) -> list[Record]:
    from clearmargin.data.walk import is_image, walk_files
    from clearmargin.errors import DataError

    place = Path(path)
    # os.path answers no, where Path raises, for a name that is too long or holds a null byte.
    if os.path.isdir(path):
        found = [str(place / name) for name in walk_files(place) if is_image(name)]
        if not found:
            raise DataError(f"{path}: no images in this folder.")
        return [_record(name) for name in found]
    if place.suffix.lower() in (".csv", ".parquet") and os.path.isfile(path):
        return _manifest_records(place)
    if os.path.lexists(path):
        return [_record(path)]
    if any(character in path for character in "*?["):
        matches = sorted(glob.glob(path, recursive=True))
        if not matches:
            raise DataError(f"{path}: no file matches.")
        files = [match for match in matches if os.path.isfile(match)]
        return [_record(match) for match in files if is_image(match) or len(files) == 1]
    raise DataError(f"{path}: no such file or folder.")


def _record(path: str) -> Record:
    from clearmargin.data.names import parse_idc_name
    from clearmargin.types import Record

    facts = parse_idc_name(Path(path).name)
    if facts is None:
        return Record(path)
    patient, x, y, _ = facts
    return Record(path, patient, patient, x, y)


def _manifest_records(path: Path) -> list[Record]:
    from clearmargin.errors import DataError
    from clearmargin.types import Record

    if path.suffix.lower() == ".parquet":
        import pandas as pd

        table = pd.read_parquet(path)
        rows = table.astype(object).where(table.notna(), "").to_dict("records")
        columns = list(map(str, table.columns))
    else:
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file)
                rows = list(reader)
                columns = list(reader.fieldnames or [])
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path}: cannot be read as a CSV ({error}).") from None
    if "path" not in columns:
        raise DataError(f"{path}: the column 'path' is missing; found {', '.join(columns) or 'none'}.")
    if not rows:
        raise DataError(f"{path}: the manifest has no rows.")
    records = []
    for line, row in enumerate(rows, start=2):
        try:
            x, y = (int(float(row.get(key) or "nan")) if row.get(key) else None for key in ("x", "y"))
        except ValueError:
            raise DataError(f"{path}: line {line} has x or y that are not whole pixels.") from None
        patient, slide = (str(row[key]) if row.get(key) else None for key in ("patient_id", "slide_id"))
        records.append(Record(str(path.parent / str(row["path"])), patient, slide, x, y))
    return records


def _write_json(predictions: Iterable[Prediction]) -> None:
    from clearmargin.predict.predictor import prediction_row

    for prediction in predictions:
        sys.stdout.write(json.dumps(prediction_row(prediction)) + "\n")


def _write_csv(predictions: Iterable[Prediction]) -> None:
    from clearmargin.predict.predictor import PREDICTION_KEYS, prediction_row

    writer = csv.DictWriter(sys.stdout, PREDICTION_KEYS, lineterminator="\n")
    writer.writeheader()
    for prediction in predictions:
        writer.writerow(prediction_row(prediction))


def _write_table(predictions: Iterable[Prediction]) -> None:
    print(f"{'decision':<10} {'probability':>11}  path")
    for prediction in predictions:
        chance = "-" if prediction.probability is None else f"{prediction.probability:.3f}"
        reason = f"  ({prediction.reason})" if prediction.reason else ""
        print(f"{prediction.decision:<10} {chance:>11}  {one_line(prediction.record.path)}{one_line(reason)}")
