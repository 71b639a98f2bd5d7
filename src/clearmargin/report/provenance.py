"""Where the figures come from, worded: data, split, methods, how to do it again, settings."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pandas as pd

from clearmargin.evaluation.choices import VALIDATION
from clearmargin.evaluation.classification_report import format_classification_report
from clearmargin.report.certainty import calibration_text
from clearmargin.report.chosen import by_whom, chosen_on
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
    config, environment, interval = run.training, run.environment, run.interval
    model: Values = environment.get("model") or {}
    terms = [
        ("Split", _split_line(run)),
        ("Preprocessing", _preprocessing_line(environment.get("preprocessing") or {})),
        ("Model", join(model.get("name") or (config and config.model.name), networks(run), _parameters(model))),
        ("Second network", _second_network(run, model)),
        ("Cross-fitting", _crossfitting(run)),
    ]
    if config is not None:
        terms += [
            ("Training", _training_line(config, run)),
            ("Augmentation", _augmentation(_changes(config, environment))),
        ]
    terms += _decisions(run, run.metrics, "")
    if run.in_context:
        terms += _decisions(run, run.metrics["context"]["alone"], " of a patch by itself")
        terms.append(("Slide context", _context_line(run.metrics["context"])))
    terms += _further_methods(run)
    if interval:
        resamples, unit = interval.get("resamples"), interval.get("unit", "image")
        method = str(interval.get("method", "")).replace("_", " ")
        terms.append(
            ("Intervals", join(method, resamples and f"{resamples:,} resamples of {unit}s", interval.get("note")))
        )
    return [(term, text) for term, text in terms if text]


def _decisions(run: RunFiles, values: Values, whose: str) -> Terms:
    """Calibration and operating point: those of the figures, or of a patch by itself."""
    calibration, point = values.get("calibration") or {}, values["operating_point"]
    named = (point.get("name"), f"threshold {point['threshold']:.4f}", point.get("rule"))
    terms = [
        (f"Calibration{whose}", calibration_text(calibration) if calibration else ""),
        (f"Operating point{whose}", join(run.in_context and not whose and "in context", *named, _where(run))),
    ]
    return [*terms, (f"Asked operating point{whose}", str(point.get("not_attained") or ""))]


def _where(run: RunFiles) -> str | None:
    """On what the bundle's operating point was chosen, where it is not validation."""
    on = run.metrics["operating_point"].get("chosen_on") or VALIDATION
    return None if on == VALIDATION or run.decides_by_fold else f"chosen on {chosen_on(run)}"


def _context_line(context: Values) -> str:
    return join(
        f"logits averaged over the slide by a Gaussian of {context['scale']:g} steps of {context['step']:,} px",
        "only patches that are there count",
        context.get("networks") == 2 and "the logit is the mean of the patch's network and of the second one",
    )


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
    if not model.get("parameters"):
        return None
    return f"{model['parameters']:,} parameters" + (" in all" if (model.get("ensemble") or 1) > 1 else "")


def networks(run: RunFiles) -> str | None:
    """How many networks the model is the mean of; None for one."""
    number = (run.environment.get("model") or {}).get("ensemble") or run.protocol.get("folds") or 1
    return f"the mean logit of {number} such networks" if number > 1 else None


def _second_network(run: RunFiles, model: Values) -> str | None:
    settings = run.training.model.model_dump() if run.training and run.protocol.get("folds") else model
    field, thumbnail = settings.get("field"), settings.get("thumbnail")
    if not field or (run.metrics.get("context") or {}).get("networks") != 2:
        return None
    who = "as many of the same name that see" if networks(run) else "one more of the same name that sees"
    return f"{who} the field of {field} × {field} patches around each, reduced to thumbnails of {thumbnail} px"


def _crossfitting(run: RunFiles) -> str | None:
    if not run.crossfit:
        return None
    parts = f"{run.crossfit} networks, each trained without another part of train and validation"
    return join(parts, f"what decides is chosen out of fold ({by_whom(run)})")


def _training_line(config: RunConfig, run: RunFiles) -> str:
    train, kept = config.train, kept_epoch(run)
    done = 0 if run.history is None else len(run.history)
    most = plural(max(done, train.epochs), "epoch")
    ran = f"{done} of at most {most}" if done else f"at most {most}"
    if done and run.crossfit:
        ran = f"each network {'up to ' if train.patience else ''}{ran}"
    return join(
        f"recipe {config.recipe}",
        f"{train.optimizer}, learning rate {train.learning_rate:g} ({train.schedule})",
        train.weight_decay and f"weight decay {train.weight_decay:g}",
        f"batches of {train.batch_size}",
        ran,
        train.min_steps and f"more epochs where they make fewer than {count(train.min_steps)} steps",
        train.patience and f"stops after {plural(train.patience, 'epoch')} without a better {_plain(train.monitor)}",
        kept is not None and f"weights of epoch {kept} kept{_why_kept(config)}",
        kept is None and run.crossfit and f"each network's own epoch kept{_why_kept(config)}",
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
    """The epoch whose weights are in the bundle: the best by the run's own rule, or the last.

    None where it is not known, or where each of several networks has its own.
    """
    if run.history is None or run.config is None:
        return None
    train = run.config.train
    if run.crossfit and (train.restore_best or train.patience):
        return None
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
