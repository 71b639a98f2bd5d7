"""`clearmargin predict`: decisions on files, folders, globs and manifests. Never imports torch or pandas."""

from __future__ import annotations

import csv
import glob
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from clearmargin.cli.options import Frame
from clearmargin.errors import counted, one_line

if TYPE_CHECKING:
    from clearmargin.bundle.schema import Decisions, ModelFile
    from clearmargin.types import PooledPrediction, Prediction, Record


_CROPS_ONLY = (
    "this model was trained on crops around lesions; of whole images its answers mean nothing. "
    "Give crops, or boxes as FILE#xywh=LEFT,TOP,WIDTH,HEIGHT."
)


def predict(
    bundle: Annotated[Path, typer.Argument(help="A bundle folder, or a run folder.")],
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH…", help="Images, folders, zips, globs or manifests (CSV).")
    ],
    output: Annotated[
        Literal["table", "json", "csv"], typer.Option("--format", help="json is one object a line.")
    ] = "table",
    level: Annotated[
        Literal["image", "slide", "patient"], typer.Option(help="What is decided: each image, slide or patient.")
    ] = "image",
    frame: Frame = None,
    context: Annotated[
        bool,
        typer.Option("--context/--no-context", help="Neighbours of a patch count, where places are known."),
    ] = True,
    gate: Annotated[
        bool,
        typer.Option("--gate/--no-gate", help="Refuse images unlike those that the model was trained on."),
    ] = True,
) -> None:
    """Decide on images with a trained bundle; exit code 5 when every input was refused."""
    from clearmargin.errors import AllRefused
    from clearmargin.predict.predictor import load_bundle

    predictor = load_bundle(bundle, gate=gate)
    note = gate_note(predictor.bundle.model, gate=gate)
    if note:
        print(f"Note: {note}", file=sys.stderr)
    if predictor.bundle.model.lineage.stamp:
        print(f"Note: this model's figures come from an {predictor.bundle.model.lineage.stamp}.", file=sys.stderr)
    if predictor.bundle.model.content == "lesion":
        print(f"Note: {_CROPS_ONLY}", file=sys.stderr)
    total, refused, in_context, placed = 0, 0, 0, 0

    def watched() -> Iterator[Prediction]:
        nonlocal total, refused, in_context, placed
        for prediction in predictor.predict_records(find_records(paths, frame=frame), context=context):
            total += 1
            refused += prediction.decision == "refused"
            in_context += prediction.in_context
            placed += prediction.record.x is not None and prediction.decision != "refused"
            yield prediction

    if level == "image":
        {"table": _write_table, "json": _write_json, "csv": _write_csv}[output](watched())
    else:
        _write_pooled(predictor.pool(watched(), level), output)
    model = predictor.bundle.model
    if context and model.context is not None and placed - in_context > 1:
        print(
            f"Note: {placed - in_context:,} patches were decided each by itself, though their places are known: a "
            f"slide needs two or more that lie {model.context.grid.step} pixels, or a multiple, apart, and none twice.",
            file=sys.stderr,
        )
    if output == "table":
        if model.context is not None and in_context and (level == "image" or level in model.context.levels):
            print(
                f"In the context of their slides, {in_context:,} of {total:,} images: {_rule(model.context, level)}",
                file=sys.stderr,
            )
        if in_context < total - refused or total == refused:
            print(_rule(model, level), file=sys.stderr)
    if refused:
        were = "was" if refused == 1 else "were"
        print(f"{refused:,} of {total:,} images {were} refused, each with its reason.", file=sys.stderr)
    if refused == total:
        raise AllRefused(f"every input was refused ({total:,} in all); see the reasons above.")


def _rule(model: Decisions, level: Literal["image", "slide", "patient"]) -> str:
    """How the decisions above were made, one line."""
    if level != "image":
        rule = model.levels[level]
        pooling = rule.pooling.method.replace("_", " ")
        return f"Malignant at or above {rule.threshold:.4f} (pooled by {pooling}); a {level} is always decided."
    point, promise = model.decision_point, model.conformal
    text = f"Malignant at or above {point.threshold:.4f} ({point.name})"
    if promise is None or promise.between is None:
        return f"{text}."
    low, high = promise.between
    return f"{text}; cannot tell from {low:.4f} to {high:.4f} (promised coverage {promise.coverage:g})."


def gate_note(model: ModelFile, *, gate: bool) -> str | None:
    """What whoever reads the decisions must know of the gate: that there is none, or not all of it."""
    fitted = model.input_gate
    if fitted is None:
        why = f" ({model.no_gate})" if model.no_gate else ""
        return f"this bundle has no input gate{why}: no image is refused for its look. 'calibrate' gives it one."
    if not gate:
        return "the input gate is switched off: images unlike those of training are decided too, which means nothing."
    if fitted.look is None:
        return f"the input gate checks only size, colour and blank images: {fitted.no_look}."
    return None


def find_records(paths: Iterable[str], *, frame: int | None = None) -> list[Record]:
    """The images that the arguments mean, in order; folders and .zip files are searched through.

    Raises:
        DataError: a path is not there, a glob or folder has no image, or a manifest has no column `path`.
    """
    from clearmargin.images.names import find_masks

    records: list[Record] = []
    found: list[str] = []
    for path in itertools.chain.from_iterable(map(_expand, paths)):
        if Path(path).suffix.lower() in (".csv", ".parquet") and os.path.isfile(path):
            records += _manifest_records(Path(path))
        else:
            of_path = _records_of_path(path, frame)
            records += of_path
            found += [record.path for record in of_path]
    masks = find_masks(found)  # a folder, or a shell's *.png, means an image and its masks alike; a table says which
    if masks:
        words = counted(len(masks), "mask is", "masks are")
        print(f"Note: {words} left out, beside the images they belong to.", file=sys.stderr)
    return [record for record in records if record.path not in masks]


def _expand(path: str) -> list[str]:
    """The path itself if anything is there, else what matches it as a glob."""
    from clearmargin.errors import DataError
    from clearmargin.images.place import parse_place, split_archive
    from clearmargin.images.read import is_image, starts_like_dicom

    # os.path answers no, where Path raises, for a name that is too long or holds a null byte.
    if os.path.lexists(path) or os.path.lexists(parse_place(path).file) or split_archive(path) is not None:
        return [path]
    if not any(character in path for character in "*?["):
        raise DataError(f"{path}: no such file or folder.")
    matches = sorted(glob.glob(path, recursive=True))
    if not matches:
        raise DataError(f"{path}: no file matches.")
    if len(matches) == 1:
        return matches
    wanted = [match for match in matches if os.path.isdir(match) or is_image(match) or starts_like_dicom(match)]
    if not wanted:
        raise DataError(f"{path}: none of the {len(matches):,} matches is an image or a folder.")
    return wanted


def _records_of_path(path: str, frame: int | None) -> list[Record]:
    from clearmargin.data.walk import walk_files
    from clearmargin.errors import DataError
    from clearmargin.images.archive import is_zip
    from clearmargin.images.read import is_image, starts_like_dicom
    from clearmargin.predict.records import record_of_path

    place = Path(path)
    if os.path.isdir(path) or is_zip(path):
        found = [name for name in walk_files(place) if is_image(name) or starts_like_dicom(place / name)]
        if not found:
            raise DataError(f"{path}: no images in this folder.")
        return [record_of_path(str(place / name), frame=frame) for name in found]
    if place.suffix.lower() == ".npz" and os.path.isfile(path):
        return _array_records(path)
    return [record_of_path(path, frame=frame)]


def _array_records(path: str) -> list[Record]:
    from clearmargin.errors import DataError
    from clearmargin.images.npz import list_arrays
    from clearmargin.types import Record

    shapes = {name: shape for name, shape in list_arrays(path).items() if len(shape) >= 3}
    if not shapes:
        raise DataError(f"{path}: holds no array of images, (N, H, W) or (N, H, W, 3).")
    return [Record(f"{path}/{name}/{row}") for name, shape in shapes.items() for row in range(shape[0])]


def _manifest_records(path: Path) -> list[Record]:
    from clearmargin.errors import DataError
    from clearmargin.predict.records import records_of_rows

    if path.suffix.lower() == ".parquet":
        from clearmargin.data.sources.csv import read_table

        table = read_table(path)
        rows = [dict(zip(table.columns, values, strict=True)) for values in table.itertuples(index=False, name=None)]
    else:
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path}: cannot be read as a CSV ({error}).") from None
    if not rows:
        raise DataError(f"{path}: the manifest has no rows.")
    return list(records_of_rows(rows, where=str(path), folder=path.parent, first_line=2))


def _write_pooled(predictions: Sequence[PooledPrediction], output: Literal["table", "json", "csv"]) -> None:
    from clearmargin.predict.pooled import POOLED_KEYS, pooled_row

    if output == "json":
        for prediction in predictions:
            sys.stdout.write(json.dumps(pooled_row(prediction)) + "\n")
    elif output == "csv":
        writer = csv.DictWriter(sys.stdout, POOLED_KEYS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(pooled_row, predictions))
    else:
        print(f"{'decision':<10} {'probability':>11} {'images':>7}  patient, slide")
        for prediction in predictions:
            chance = "-" if prediction.probability is None else f"{prediction.probability:.4f}"
            names = ", ".join(one_line(name) for name in (prediction.patient_id, prediction.slide_id) if name)
            print(f"{prediction.decision:<10} {chance:>11} {prediction.n_images:>7,}  {names or '-'}")


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
        chance = "-" if prediction.probability is None else f"{prediction.probability:.4f}"
        reason = f"  ({prediction.reason})" if prediction.reason else ""
        print(f"{prediction.decision:<10} {chance:>11}  {one_line(prediction.record.path)}{one_line(reason)}")
