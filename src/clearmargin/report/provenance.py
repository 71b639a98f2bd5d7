"""Where the figures come from, worded: data, split, methods, how to do it again, settings."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pandas as pd

from clearmargin.evaluation.classification_report import format_classification_report
from clearmargin.report.certainty import calibration_text
from clearmargin.report.document import Row, Shown, Table, counted
from clearmargin.report.run_files import RunFiles, Values
from clearmargin.report.words import count, percent, plural, span
from clearmargin.settings import AugmentSettings, RunConfig
from clearmargin.types import MALIGNANT, SPLITS

Terms = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class SplitRow:
    split: str
    n_images: int
    n_patients: int | None
    n_malignant: int | None

    @property
    def share(self) -> float | None:
        return None if self.n_malignant is None or not self.n_images else self.n_malignant / self.n_images


@dataclass(frozen=True, slots=True)
class Step:
    """One step from the files found to the images used; `change` is against the step before."""

    step: str
    count: int
    change: int


def flow_steps(audit: Values) -> list[Step]:
    """The counts from files found to images used, each with what was lost on the way."""
    flow = audit.get("flow") or []
    counts = [int(step["count"]) for step in flow]
    changes = [now - before for before, now in itertools.pairwise(counts[:1] + counts)]
    return [Step(str(step["step"]), n, change) for step, n, change in zip(flow, counts, changes, strict=True)]


def findings_by_severity(audit: Values) -> list[tuple[str, list[Values]]]:
    """Findings of each severity that has any, the gravest first."""
    findings = audit.get("findings") or []
    groups = [(severity, [each for each in findings if each["severity"] == severity]) for severity in _SEVERITIES]
    return [(severity, found) for severity, found in groups if found]


_SEVERITIES = ("blocking", "warning", "note")


def split_rows(run: RunFiles) -> list[SplitRow]:
    """Images, patients and classes of each split: of split.csv, otherwise of metrics.json."""
    if run.split is not None:
        parts = [(name, run.split[run.split["split"] == name]) for name in SPLITS]
        return [_split_row(name, rows) for name, rows in parts if len(rows)]
    images, patients = run.protocol.get("images") or {}, run.protocol.get("patients") or {}
    rows = []
    for name in SPLITS:
        confusion = (run.metrics.get(name) or {}).get("image", {}).get("confusion")
        n_images = images.get(name) or (sum(map(sum, confusion)) if confusion else None)
        if n_images:
            rows.append(SplitRow(name, n_images, patients.get(name), sum(confusion[1]) if confusion else None))
    return rows


def split_table(run: RunFiles) -> Table | None:
    """The same as a table; None where nothing is known of the split."""
    rows = [
        Row(
            each.split,
            (
                counted(each.n_images, f"split.{each.split}.n_images"),
                counted(each.n_patients, f"split.{each.split}.n_patients"),
                Shown(percent(each.share, 1), f"split.{each.split}.malignant_share"),
            ),
        )
        for each in split_rows(run)
    ]
    return Table(("Split", "Images", "Patients", "Malignant"), tuple(rows)) if rows else None


def _split_row(name: str, rows: pd.DataFrame) -> SplitRow:
    known = rows["patient_id"] != ""
    n_patients = int(rows["patient_id"].nunique()) if known.all() else None
    return SplitRow(name, len(rows), n_patients, int((rows["label"] == MALIGNANT).sum()))


def methods(run: RunFiles) -> Terms:
    """Split, preprocessing, model, training, calibration, operating point and interval, one line each."""
    config, environment, metrics, interval = run.training, run.environment, run.metrics, run.interval
    calibration, point = metrics.get("calibration") or {}, metrics["operating_point"]
    model: Values = environment.get("model") or {}
    terms = [
        ("Split", _split_line(run)),
        ("Preprocessing", _preprocessing_line(environment.get("preprocessing") or {})),
        ("Model", join(model.get("name") or (config and config.model.name), _parameters(model), _networks(model))),
    ]
    if config is not None:
        terms += [
            ("Training", _training_line(config, run)),
            ("Augmentation", _augmentation(_changes(config, environment))),
        ]
    if calibration:
        terms.append(("Calibration", calibration_text(calibration)))
    terms.append(("Operating point", join(point.get("name"), f"threshold {run.threshold:.4f}", point.get("rule"))))
    if point.get("not_attained"):
        terms.append(("Asked operating point", str(point["not_attained"])))
    terms += _further_methods(run)
    if interval:
        resamples, unit = interval.get("resamples"), interval.get("unit", "image")
        method = str(interval.get("method", "")).replace("_", " ")
        terms.append(
            ("Intervals", join(method, resamples and f"{resamples:,} resamples of {unit}s", interval.get("note")))
        )
    return [(term, text) for term, text in terms if text]


def classification_report(run: RunFiles) -> str | None:
    """The classification report of the headline split as text; None where the run has none."""
    return format_classification_report(run.block) if run.block.get("classification_report") else None


def _further_methods(run: RunFiles) -> Terms:
    """Abstention, folds and seeds, where the run has them."""
    terms: Terms = []
    region = run.metrics.get("abstention") or {}
    if region.get("coverage"):
        between = None if region.get("low") is None else (region["low"], region["high"])
        withheld = f"withheld {span(between)}" if between else "nothing withheld"
        promised = f"promised coverage {region['coverage']:g}"
        terms.append(("Abstention", join(f"conformal, by {region['unit']}", promised, withheld)))
    protocol = run.protocol
    if protocol.get("folds"):
        folds, repeats = plural(protocol["folds"], "fold"), plural(protocol.get("repeats") or 1, "repeat")
        instead = "what is chosen on validation is chosen on the out-of-fold predictions of the other folds"
        terms.append(("Cross-validation", join(folds, repeats, instead)))
    if seeds := (run.metrics.get("seeds") or {}).get("seeds"):
        terms.append(("Seeds", ", ".join(map(str, seeds))))
    return terms


def _split_line(run: RunFiles) -> str:
    how = {
        "patient": "by patient: no patient is in two splits",
        "image": "by image: patients may be on both sides",
        "official": "the data set's official split",
        "external": "none: data that the model was not made from",
    }.get(str(run.protocol.get("split")), "")
    shared = run.shared_patients if run.protocol.get("split") != "patient" else None
    seed = run.protocol.get("seed")
    return join(
        how,
        shared is not None and f"{plural(shared, 'patient')} in both training and {run.headline}",
        seed is not None and f"seed {seed}",
    )


def _preprocessing_line(spec: Values) -> str:
    if not spec:
        return ""
    fit = {"pad": f"aspect ratio kept, padded ({spec.get('padding', '')})", "stretch": "stretched to the size"}
    grey = {1: "grey", 3: "RGB"}.get(spec.get("channels", 0), "")
    size = "width" in spec and f"{spec['width']} × {spec.get('height')} px"
    mean, std = spec.get("mean", 0.0), spec.get("std", 1.0)
    scale = "divided by 255" + (f", minus {mean:g}" if mean else "") + (f", over {std:g}" if std != 1 else "")
    resize = "interpolation" in spec and f"{spec['interpolation']} interpolation"
    return join(size, grey, fit.get(str(spec.get("fit"))), resize, scale)


def _parameters(model: Values) -> str | None:
    return f"{model['parameters']:,} parameters" if model.get("parameters") else None


def _networks(model: Values) -> str | None:
    return f"the mean logit of {model['ensemble']} such networks" if (model.get("ensemble") or 1) > 1 else None


def _training_line(config: RunConfig, run: RunFiles) -> str:
    train, kept = config.train, kept_epoch(run)
    done = 0 if run.history is None else len(run.history)
    most = plural(max(done, train.epochs), "epoch")
    return join(
        f"recipe {config.recipe}",
        f"{train.optimizer}, learning rate {train.learning_rate:g} ({train.schedule})",
        train.weight_decay and f"weight decay {train.weight_decay:g}",
        f"batches of {train.batch_size}",
        f"{done} of at most {most}" if done else f"at most {most}",
        train.min_steps and f"more epochs where they make fewer than {count(train.min_steps)} steps",
        train.patience and f"stops after {plural(train.patience, 'epoch')} without a better {_plain(train.monitor)}",
        kept is not None and f"weights of epoch {kept} kept{_why_kept(config)}",
        train.balance != "none" and f"classes balanced by {train.balance}",
        train.label_smoothing and f"label smoothing {train.label_smoothing:g}",
        train.average_decay and f"weights averaged (decay {train.average_decay:g})",
    )


def _why_kept(config: RunConfig) -> str:
    return f" (best {_plain(config.train.monitor)})" if config.train.restore_best else " (the last)"


def _plain(name: str) -> str:
    return name.replace("_", " ").replace("auroc", "AUROC")


def _changes(config: RunConfig, environment: Values) -> AugmentSettings:
    grey = config.augment_grey if environment.get("grey") else None
    return grey or config.augment


def _augmentation(settings: AugmentSettings) -> str:
    used = []
    for name, value in settings.model_dump().items():
        if value is True:
            used.append(_plain(name))
        elif value:
            unit = "°" if name.endswith("_degrees") else ""
            used.append(f"{_plain(name.removesuffix('_degrees'))} {value:g}{unit}")
    return ", ".join(used) or "none"


def join(*parts: object) -> str:
    """The parts that say something, separated by semicolons."""
    return "; ".join(str(part) for part in parts if part)


def kept_epoch(run: RunFiles) -> int | None:
    """The epoch whose weights are in the bundle: the best by the run's own rule, or the last."""
    if run.history is None or run.config is None:
        return None
    train = run.config.train
    if not train.restore_best:
        return int(run.history["epoch"].iloc[-1])
    values = run.history.get(train.monitor)
    if values is None or values.isna().all():
        return None
    best = values.argmin() if train.monitor.endswith("loss") else values.argmax()
    return int(run.history["epoch"].iloc[best])


def counts_line(audit: Values) -> str:
    """One line: images, patients, slides, classes."""
    counts: Values = audit.get("counts") or {}
    if not counts:
        return ""
    patients, slides = counts.get("patients"), counts.get("slides")
    total = counts.get("images") or 0
    malignant = counts.get("malignant") or 0
    return join(
        f"{count(total)} images",
        plural(patients, "patient") if patients else "patients not known",
        slides and plural(slides, "slide"),
        f"{count(malignant)} malignant ({percent(malignant / total if total else None, 1)})",
        f"{count(counts.get('benign'))} benign",
    )
