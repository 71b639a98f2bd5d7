"""`clearmargin predict`: decisions on files, folders, globs and manifests. Never imports torch or pandas."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TextIO

import typer

from clearmargin.cli.options import BundlePath, Frame, Gated
from clearmargin.cli.progress import build_listener
from clearmargin.errors import UsageError, counted, one_line
from clearmargin.files import check_can_hold_file, make_folder, write_whole

if TYPE_CHECKING:
    from clearmargin.bundle.schema import Decisions, ModelFile
    from clearmargin.cli.answers import Format
    from clearmargin.predict.predictor import Predictor
    from clearmargin.types import Listener, PooledPrediction, Prediction

_MANY = 100
"""Images from which on it is told how far the job is."""

_ASSUMED = "this model was imported, so its threshold of 0.5 is assumed; 'clearmargin calibrate' chooses one."
CROPS_ONLY = (
    "this model was trained on crops around lesions; of whole images its answers mean nothing. "
    "Give crops, or boxes as FILE#xywh=LEFT,TOP,WIDTH,HEIGHT."
)


def predict(
    bundle: BundlePath,
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH…", help="Images, folders, zips, globs or manifests (CSV).")
    ],
    output: Annotated[
        Literal["table", "json", "csv"] | None,
        typer.Option(
            "--format",
            help="How to write the answers; json is one object a line. By default as --out is named, or a table.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write to this .csv, .json or .jsonl file, row by row; the latter two hold JSON lines."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the file of --out where it ends.")] = False,
    level: Annotated[
        Literal["image", "slide", "patient"], typer.Option(help="What is decided on: each image, slide or patient.")
    ] = "image",
    frame: Frame = None,
    context: Annotated[
        bool,
        typer.Option("--context/--no-context", help="Let the neighbours of a patch count, where places are known."),
    ] = True,
    similar: Annotated[
        int | None,
        typer.Option(metavar="K", min=1, max=50, help="Also show the K training images most like each, 1 to 50."),
    ] = None,
    gate: Gated = True,
) -> None:
    """Decide on images with a trained bundle; exit code 5 when every input was refused."""
    from clearmargin.cli.answers import AnswerFile, Job, format_of, write_predictions
    from clearmargin.cli.inputs import Inputs
    from clearmargin.errors import AllRefused, Interrupted
    from clearmargin.predict.predictor import load_bundle
    from clearmargin.predict.resume import find_start, predict_from

    chosen = format_of(out, output)
    if resume and (out is None or level != "image"):
        raise UsageError("--resume goes on with the rows of images in the file that --out names; give --out FILE.")
    if out is not None:
        check_can_hold_file(out, "--out", example="predictions.csv")
    predictor = load_bundle(bundle, gate=gate)
    _check_similar(predictor, similar, level)
    model = predictor.bundle.model
    _warn(model, gate=gate)
    inputs = Inputs(paths, frame=frame)
    file, start = None, 0
    if out is not None and level == "image":
        options = {"context": context, "frame": frame, "gate": gate, "similar": similar}
        job = Job(predictor.bundle.sha256, options, chosen, inputs)
        file = AnswerFile(out, job, resume=resume)
        start = find_start(predictor, inputs, file.rows, context=context)
        file.cut(start)
        if start:
            print(f"Going on after {start:,} of {len(inputs):,} images.", file=sys.stderr)
    tally = _Tally(file.counts if file else Counter())
    quiet = len(inputs) - start < _MANY or (out is None and sys.stdout.isatty())
    answers = tally.watch(
        predict_from(predictor, inputs, start, context=context, similar=similar or 0),
        len(inputs),
        every=predictor.batch,
        listener=build_listener(quiet=quiet),
    )
    written = tally.counts
    if level != "image":
        pooled = predictor.pool(answers, level)
        written = Counter(each.decision for each in pooled)
        _write_pooled_to(out, pooled, chosen)
    elif file is None:
        write_predictions(sys.stdout, answers, chosen, every=predictor.batch, similar=similar is not None)
    else:
        try:
            file.append(answers, every=predictor.batch)
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted; {out} is not whole. Go on with the same command and --resume.") from None
    if out is not None:
        _tell_file(out, level, written, output=chosen, is_kept=file is not None)
    _tell(tally, model, level, with_rule=chosen == "table" or out is not None, context=context)
    if tally.refused == tally.total:
        raise AllRefused(f"every input was refused ({tally.total:,} in all); see the reasons above.")


def _warn(model: ModelFile, *, gate: bool) -> None:
    """What the user should know of the model before its answers."""
    lineage = model.lineage
    if note := gate_note(model, gate=gate):
        print(f"Note: {note}", file=sys.stderr)
    if lineage.stamp:
        print(f"Note: this model's figures come from an {lineage.stamp}.", file=sys.stderr)
    if lineage.imported is not None and lineage.recalibrated is None:
        print(f"Note: {_ASSUMED}", file=sys.stderr)
    if model.content == "lesion":
        print(f"Note: {CROPS_ONLY}", file=sys.stderr)


class _Tally:
    """Counts predictions as they pass, to those that `counts` has by decision."""

    def __init__(self, counts: Counter[str]) -> None:
        self.counts, self.total = counts, counts.total()
        self.in_context = self.placed = 0

    @property
    def refused(self) -> int:
        return self.counts["refused"]

    def watch(
        self, predictions: Iterable[Prediction], n_images: int, *, every: int, listener: Listener
    ) -> Iterator[Prediction]:
        """The predictions; `listener` hears after `every` so many of them how far the job is."""
        start = self.total
        listener.stage("predict")
        for prediction in predictions:
            self.total += 1
            self.counts[prediction.decision] += 1
            self.in_context += prediction.in_context
            self.placed += prediction.record.x is not None and prediction.decision != "refused"
            yield prediction
            if self.total % every == 0 or self.total == n_images:
                listener.advance(self.total - start, n_images - start)


def _tell_file(
    out: Path, level: Literal["image", "slide", "patient"], counts: Mapping[str, int], *, output: Format, is_kept: bool
) -> None:
    """What was written where; `is_kept` where --resume can go on with it."""
    from clearmargin.cli.answers import count_words, job_file

    number = counted(sum(counts.values()), level, f"{level}s")
    form = ", one JSON object a line" if output == "json" else ""
    print(f"\nWrote {number} to {one_line(str(out))}{form}: {count_words(counts)}.", file=sys.stderr)
    if is_kept:
        print(f"{one_line(job_file(out).name)} beside it is for --resume alone.", file=sys.stderr)


def _tell(
    tally: _Tally, model: ModelFile, level: Literal["image", "slide", "patient"], *, with_rule: bool, context: bool
) -> None:
    """How the decisions were made, and how many there are none of."""
    if context and model.context is not None and tally.placed - tally.in_context > 1:
        print(
            f"Note: {tally.placed - tally.in_context:,} patches were decided each by itself, though their places are "
            f"known: a slide needs two or more that lie {model.context.grid.step} pixels, or a multiple, apart, and "
            "none twice.",
            file=sys.stderr,
        )
    if with_rule:
        if model.context is not None and tally.in_context and (level == "image" or level in model.context.levels):
            print(
                f"In the context of their slides, {tally.in_context:,} of {tally.total:,} images: "
                f"{_rule(model.context, level)}",
                file=sys.stderr,
            )
        if tally.in_context < tally.total - tally.refused or tally.total == tally.refused:
            print(_rule(model, level), file=sys.stderr)
    if tally.refused:
        print(refused_words(tally.refused, tally.total), file=sys.stderr)


def refused_words(refused: int, total: int) -> str:
    """How many of so many images were refused, both at least 1.

    >>> refused_words(1, 1), refused_words(1, 3)
    ('The image was refused, with its reason.', '1 of 3 images was refused, with its reason.')
    """
    if total == 1:
        return "The image was refused, with its reason."
    what = "was refused, with its reason" if refused == 1 else "were refused, each with its reason"
    return f"{refused:,} of {total:,} images {what}."


def _check_similar(predictor: Predictor, similar: int | None, level: Literal["image", "slide", "patient"]) -> None:
    """Before anything is printed: what is asked for can be had."""
    if similar is None:
        return
    if level != "image":
        raise UsageError(f"--similar is about images; leave out --level {level}.")
    _ = predictor.similar_cases


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


def _write_pooled_to(out: Path | None, predictions: Sequence[PooledPrediction], output: Format) -> None:
    if out is None:
        _write_pooled(sys.stdout, predictions, output)
        return

    def write(partial: Path) -> None:
        with partial.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            _write_pooled(file, predictions, output)

    make_folder(out.absolute().parent)
    write_whole(out, write)


def _write_pooled(file: TextIO, predictions: Sequence[PooledPrediction], output: Format) -> None:
    from clearmargin.predict.pooled import POOLED_KEYS, pooled_row

    if output == "json":
        for prediction in predictions:
            file.write(json.dumps(pooled_row(prediction)) + "\n")
    elif output == "csv":
        writer = csv.DictWriter(file, POOLED_KEYS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(pooled_row, predictions))
    else:
        print(f"{'decision':<10} {'probability':>11} {'images':>7}  patient, slide", file=file)
        for prediction in predictions:
            chance = "-" if prediction.probability is None else f"{prediction.probability:.4f}"
            names = ", ".join(one_line(name) for name in (prediction.patient_id, prediction.slide_id) if name)
            print(f"{prediction.decision:<10} {chance:>11} {prediction.n_images:>7,}  {names or '-'}", file=file)
