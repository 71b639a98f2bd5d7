"""The model card (Mitchell et al. 2019), written from model.json so that it cannot say anything else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearmargin.bundle.schema import Context, Decisions, Lineage, ModelFile, Recalibration
from clearmargin.decision import Beta, Calibration, Level, Platt, Temperature
from clearmargin.gate import FALSE_REFUSALS, Features, Look
from clearmargin.types import LEVELS, OperatingPoint

_FIGURES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "brier": "Brier score",
    "ece": "ECE",
    "calibration_slope": "calibration slope",
    "calibration_intercept": "calibration intercept",
}
_SINCE_SLOPE = ("calibration_slope", "calibration_intercept")
"""Figures that bundles of earlier versions do not have."""

_CONTENT = {
    None: "images like those it was trained on, whose kind is not recorded",
    "histology": "histology patches",
    "mammogram": "whole mammograms",
    "ultrasound": "whole ultrasound images",
    "lesion": "crops around one lesion each, not whole images",
}
_POOLING = {
    "mean": "the mean probability of its images",
    "noisy_or": "one minus the product of its images' probabilities of benign",
    "learned": "a weighting of the mean and of the highest tenth of its images, fitted where its threshold was chosen",
}


def model_card(model: ModelFile) -> str:
    """The card as Markdown."""
    spec, lineage = model.preprocessing, model.lineage
    stamp = (
        f"\n> **{lineage.stamp}**: patients may be on both sides of the split; expect less on new patients.\n"
        if lineage.stamp
        else ""
    )
    size = f"{spec.width}×{spec.height} pixels, {'RGB' if spec.channels == 3 else 'grey'}, 8 bit"
    libraries = ", ".join(f"{name} {version}" for name, version in sorted(lineage.libraries.items()))
    return f"""# Model card

{model.intended_use}
{stamp}
## The model

- Architecture: {_architecture(model)}
- {_trained(lineage)}
- Input: {size}; others are fitted by `{spec.fit}` (padding {spec.padding}, interpolation {spec.interpolation}),
  and 16-bit values are scaled by the range of their container
- Made for: {_CONTENT[model.content]}
- Output: the logit of *malignant*
{_cases(model)}
{_deciding(model)}

## What it refuses

{_refused(model)}

## The evidence

{_evidence(model)}

## Limits

{_validity(lineage)}
- {_cannot_tell(model)}
{_context_limit(model)}{_saliency(model)}- A probability of one image says nothing about the whole breast.

## Lineage

{_origin(lineage)}
- Libraries: {libraries}
"""


def _trained(lineage: Lineage) -> str:
    if lineage.imported is not None:
        return "**Imported**: how and on what it was trained is not known"
    return f"Recipe: `{lineage.recipe}`, seed {lineage.seed}"


def _evidence(model: ModelFile) -> str:
    metrics = model.lineage.metrics
    if metrics is None:
        anew = model.lineage.recalibrated
        chosen = "" if anew is None else f" {_chosen_anew(anew)}"
        return (
            f"None is known: the imported file holds no figures.{chosen} `clearmargin evaluate` measures it on images "
            "that it was not trained on."
        )
    return f"{_evaluated(model)} 95 % intervals are over {_resampled(metrics)}:\n\n{_figures(metrics)}"


def _validity(lineage: Lineage) -> str:
    if lineage.metrics is None:
        return (
            "- Which patients, scanners and stains it was trained on is not known, so neither is where it holds: "
            "evaluate it on your own images first."
        )
    return (
        "- The figures hold for patients, scanners and stains like those of the training data, and for images prepared "
        "alike.\n- PPV and NPV hold where as many images are malignant as there."
    )


def _origin(lineage: Lineage) -> str:
    found = lineage.imported
    if found is not None:
        version = (
            f", written by Keras {found.keras_version}" if found.keras_version else ", by an unknown version of Keras"
        )
        return (
            f"- Imported by clearmargin {lineage.clearmargin} on {lineage.created} from a Keras file (.{found.format}"
            f"{version})\n- File sha256 `{found.file_sha256}`"
        )
    return f"""- Made by clearmargin {lineage.clearmargin} on {lineage.created}, precision {lineage.precision}
{_pretrained(lineage)}- Data sha256 `{lineage.data_sha256}`
- Split sha256 `{lineage.split_sha256}`"""


def _chosen_anew(anew: Recalibration) -> str:
    return (
        f"**How it decides was chosen anew** on {anew.images:,} images of {_patients(anew.patients)} ({anew.created})."
    )


def _architecture(model: ModelFile) -> str:
    made, networks = model.architecture, model.architecture.ensemble
    text = f"`{made.name}`, {made.parameters:,} parameters"
    if networks > 1:
        text = f"the mean logit of {networks} networks {text} in all"
    if model.context is not None and model.context.grid.networks == 2:
        who = f"{networks} more see" if networks > 1 else "one more sees"
        text += (
            f"; {who} the field of {made.field}×{made.field} patches around each, reduced to thumbnails of "
            f"{made.thumbnail} pixels"
        )
    if model.lineage.crossfit:
        text += "\n- Cross-fitted: each network was trained without another part of train and validation"
    return text


def _cases(model: ModelFile) -> str:
    kept = model.cases
    if kept is None:
        return ""
    ids = "pseudonyms of their patients" if kept.pseudonymous else "their patients' ids and files' names"
    return (
        f"- **It carries pictures of {kept.images:,} training images of {_patients(kept.patients)}**, at most 64 "
        f"pixels a side, with {ids} (`predict --similar`): whoever has this bundle has those\n"
    )


def _deciding(model: ModelFile) -> str:
    """How it decides: in context and an image by itself, or the latter alone."""
    if model.context is None:
        why = f"\n- Neighbours in the slide do not count: {model.no_context}" if _is_about_slides(model) else ""
        return f"## How it decides\n\n{_decisions(model, model)}{why}"
    return f"""## How it decides in the context of a slide

Where the places of a slide's patches are known:

- {_grid(model.context)}
{_decisions(model, model.context)}

## How it decides an image by itself

Where they are not known, or with `predict --no-context`:

{_decisions(model, model)}"""


def _is_about_slides(model: ModelFile) -> bool:
    return model.no_context is not None and model.content in (None, "histology")


def _grid(context: Context) -> str:
    grid = context.grid
    mean = "the mean of the logits of a patch and of its field" if grid.networks == 2 else "the logit"
    return (
        f"Its logit in context is {mean}, averaged over the slide by a Gaussian of {grid.scale:g} steps of "
        f"{grid.step:,} pixels; only patches that are there count"
    )


def _decisions(model: ModelFile, decisions: Decisions) -> str:
    point = decisions.decision_point
    return f"""- Probability = {calibration_formula(decisions.calibrated_by)}
- Malignant when the probability is at or above {point.threshold:.4f}, otherwise benign
- Operating point: `{point.name}`, {point.rule}{_achieved(point)}
- {_abstention(decisions, split=model.lineage.split)}
{_levels(decisions)}"""


def _pretrained(lineage: Lineage) -> str:
    known = lineage.weights_sha256
    return f"- Began with pretrained weights, sha256 `{known}`\n" if known else ""


def calibration_formula(calibration: Calibration) -> str:
    """How a probability is computed of the logit, to four digits.

    >>> calibration_formula(Temperature(temperature=1.5))
    'sigmoid(logit / 1.5000)'
    """
    if isinstance(calibration, Temperature):
        return f"sigmoid(logit / {calibration.temperature:.4f})"
    if isinstance(calibration, Platt):
        return f"sigmoid({calibration.slope:.4f} × logit {_added(calibration.intercept)}), by Platt scaling"
    if isinstance(calibration, Beta):
        terms = f"{calibration.a:.4f} × ln p {_added(-calibration.b)} × ln(1 − p) {_added(calibration.c)}"
        return f"sigmoid({terms}) with p = sigmoid(logit), by beta calibration"
    return f"linear between {len(calibration.logits)} knots, by isotonic regression"


def _added(value: float) -> str:
    return f"{'−' if value < 0 else '+'} {abs(value):.4f}"


def _achieved(point: OperatingPoint) -> str:
    figures = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in point.achieved.items())
    return f"; on {point.chosen_on}, where it was chosen: {figures}" if figures else ""


def _abstention(decisions: Decisions, *, split: str) -> str:
    region = decisions.conformal
    if region is None:
        return f"It never answers *cannot tell*: {decisions.no_abstention or 'no region of abstention was fitted'}"
    promise = (
        f"promised coverage {region.coverage:g}: for a new {region.unit} like the {region.n_units:,} that it was "
        "fitted on, at least that share of the images is answered rightly or withheld, on average"
    )
    if split == "image":
        promise += "; nothing is promised for a new patient, since images were split without regard to patients"
    if region.between is None:
        return f"Answers benign or malignant, since the promise holds without *cannot tell*; {promise}"
    low, high = region.between
    return f"Answers benign, malignant or *cannot tell* (probabilities from {low:.4f} to {high:.4f}); {promise}"


def _levels(decisions: Decisions) -> str:
    lines = []
    for name in LEVELS:
        if name in decisions.levels:
            lines.append(f"- A {name}: {_level(decisions.levels[name])}")
        elif name in decisions.no_levels:
            lines.append(f"- A {name} is not decided: {decisions.no_levels[name]}")
    return "\n".join(lines) or "- It decides images, not slides or patients"


def _level(level: Level) -> str:
    pooling = level.pooling
    pooled = f"the mean of its {pooling.k} highest probabilities" if pooling.k else _POOLING[pooling.method]
    mapped = "" if level.calibration == Temperature() else ", calibrated by Platt scaling of its logit"
    reason = f" ({level.reason})" if level.reason else ""
    return f"{pooled}{mapped}; malignant at or above {level.threshold:.4f}, and never *cannot tell*{reason}"


def _evaluated(model: ModelFile) -> str:
    lineage, anew = model.lineage, model.lineage.recalibrated
    before = ""
    if anew is not None:
        before = (
            f"{_chosen_anew(anew)} The figures below are from before; `clearmargin evaluate` gives those of today.\n\n"
        )
    if lineage.folds:
        how = (
            f"Split by **{lineage.split}** into {lineage.folds} folds. The mean of the networks, which this bundle is, "
            "has been tested on nobody, and what it decides by was chosen on logits of single networks: expect "
            f"probabilities that are a little too timid. Figures of each network on its own test fold{_among(model)};"
        )
    else:
        how = f"Split by **{lineage.split}**. Figures of the test part{_among(model)};"
    if lineage.crossfit and anew is None:
        how = (
            "What decides was chosen on train and validation out of fold, by single networks on those that each had "
            f"not seen; the mean of the networks was judged on test. {how}"
        )
    return before + how


def _among(model: ModelFile) -> str:
    """That the figures are those in context; before decisions were chosen anew, it is not known."""
    return ", in the context of its slides" if model.context is not None and model.lineage.recalibrated is None else ""


def _context_limit(model: ModelFile) -> str:
    if model.context is None:
        return ""
    return (
        "- The figures are those in context: an image by itself has others, and so have slides whose patches lie "
        "farther apart or closer.\n"
    )


def _saliency(model: ModelFile) -> str:
    if not model.saliency:
        return ""
    first = next(iter(model.saliency.values()))
    return (
        f"- `clearmargin explain` colours its maps on one fixed scale, found on {first.of}: they are evidence for this "
        "network, not for disease.\n"
    )


def _cannot_tell(model: ModelFile) -> str:
    decisions: Decisions = model.context or model
    if model.input_gate is None:
        stops = "nothing stops images of another kind: it has no gate"
    else:
        stops = "its gate stops only what is plainly unlike"
    if decisions.conformal is None:
        return f'The model does not say "I cannot tell", and {stops}.'
    return f"*Cannot tell* is no guard against images of another kind, and {stops}."


def _refused(model: ModelFile) -> str:
    gate = model.input_gate
    if gate is None:
        why = f": {model.no_gate}" if model.no_gate else ""
        return f"- It refuses no image for its look{why}. `clearmargin calibrate` gives it a gate"
    small, large = (f"{width}×{height}" for width, height in (gate.sizes.smallest, gate.sizes.largest))
    colour = {True: "; images in colour", False: "; images without colour", None: ""}[gate.grey]
    blank = "" if gate.blank else "; blank images"
    lines = [
        f"- What it was shown: {gate.chosen_on}",
        f"- Refused: images more than {gate.sizes.factor:g} times larger than {large} pixels or smaller than {small}"
        f"{colour}{blank}",
        f"- Refused: images that look otherwise{_chosen(gate.look, gate.no_look)}",
        f"- Refused: images in which the network sees something else{_chosen(gate.features, gate.no_features)}",
    ]
    if gate.on_test is not None:
        refused, images = gate.on_test.refused, gate.on_test.images
        lines.append(f"- Of {images:,} images of test it refuses {refused:,} ({refused / images:.1%})")
    lines.append("- `predict --no-gate` decides on them all the same, and says so in each row")
    return "\n".join(lines)


def _chosen(part: Look | Features | None, missing: str | None) -> str:
    if part is None:
        return f": not checked, since {missing}"
    chosen = part.evidence
    whose = "patients" if chosen.unit == "patient" else "images, whose patients are unknown"
    return (
        f"; the threshold allows for {FALSE_REFUSALS / 2:.1%} of the images of new patients, wider the fewer "
        f"were judged: {chosen.n_units:,} {whose}, of whose images {chosen.share:.1%} are beyond it"
    )


def _figures(metrics: Mapping[str, Any]) -> str:
    lines = [
        f"{metrics['n_images']:,} images of {_patients(metrics['n_patients'])}.",
        "",
        "| figure | value | 95 % interval |",
    ]
    lines.append("|---|---|---|")
    for key, name in _FIGURES.items():
        if key in _SINCE_SLOPE and key not in metrics:
            continue
        figure = metrics[key]
        if figure["value"] is None:
            lines.append(f"| {name} | not defined: {figure['reason']} | |")
        else:
            interval = (
                f"{figure['ci'][0]:.3f} to {figure['ci'][1]:.3f}" if figure["ci"] else f"none: {figure['reason']}"
            )
            lines.append(f"| {name} | {figure['value']:.3f} | {interval} |")
    return "\n".join(lines)


def _resampled(metrics: Mapping[str, Any]) -> str:
    return "images, because no patient is known" if metrics["n_patients"] is None else "patients"


def _patients(count: int | None) -> str:
    return "an unknown number of patients" if count is None else f"{count:,} patients"
