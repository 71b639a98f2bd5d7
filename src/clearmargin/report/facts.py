"""What the run knows of itself, in sentences for the checklists; every number is one that the report shows."""

from __future__ import annotations

from clearmargin.report import provenance, reproduction, results
from clearmargin.report.chosen import by_whom, chosen_on
from clearmargin.report.deciding import promise
from clearmargin.report.document import interval_of, plain, value_of
from clearmargin.report.results import NAMES
from clearmargin.report.run_files import RunFiles
from clearmargin.report.words import count, decimal, percent, plural, read_figure, sentence
from clearmargin.types import INTENDED_USE, OPTIMISTIC_STAMP, SPLITS


def gather_facts(run: RunFiles) -> dict[str, str]:
    """Fact to sentence, an empty text where the run does not know; the names are those in `checklists/`."""
    methods = dict(provenance.methods(run))
    figures = (
        {
            "answer": plain(results.answer(run)),
            "use": INTENDED_USE,
            "purpose": "Evaluation of a model that was made elsewhere."
            if run.is_external
            else "Development of a model, and its evaluation on images held out.",
        }
        | _data(run)
        | _results(run)
        | _design(run)
    )
    named = {
        "split": "Split",
        "preprocessing": "Preprocessing",
        "model": "Model",
        "training": "Training",
        "augmentation": "Augmentation",
        "calibration": "Calibration",
        "operating_point": "Operating point",
        "intervals": "Intervals",
    }
    return figures | {fact: f"{term}: {methods[term]}." if term in methods else "" for fact, term in named.items()}


def _data(run: RunFiles) -> dict[str, str]:
    audit = run.audit or {}
    place = audit.get("data") or {}
    flow = [f"{count(step.count)} {step.step}" for step in provenance.flow_steps(audit)]
    findings = [f"{len(found)} {severity}" for severity, found in provenance.findings_by_severity(audit)]
    left_out = len(audit.get("quarantine") or [])
    sizes = []
    for row in provenance.split_rows(run):
        patients = f" of {plural(row.n_patients, 'patient')}" if row.n_patients else ""
        share = f", {percent(row.share, 1)} malignant" if row.share is not None else ""
        sizes.append(f"{row.split}: {plural(row.n_images, 'image')}{patients}{share}")
    image = run.block["image"]
    patients = f" of {plural(image['n_patients'], 'patient')}" if image.get("n_patients") else ""
    return {
        "source": f"Source: {place.get('source')}." if place.get("source") else "",
        "flow": f"{'; '.join(flow)}." if flow else "",
        "counts": f"{provenance.counts_line(audit)}." if audit.get("counts") else "",
        "quality": f"The audit of the data found by severity: {', '.join(findings)}." if findings else "",
        "missing": f"{plural(left_out, 'file')} could not be used and was left out; nothing was imputed."
        if left_out == 1
        else f"{plural(left_out, 'file')} could not be used and were left out; nothing was imputed."
        if run.audit
        else "",
        "split_sizes": f"{'; '.join(sizes)}." if sizes else "",
        "test_size": f"{plural(image['n_images'], f'{run.headline} image')}{patients}.",
        "share": _share(run),
        "pseudonyms": _pseudonyms(run),
        "labels": "Each image is benign or malignant as its data set says.",
    }


def _share(run: RunFiles) -> str:
    confusion = run.block["image"].get("confusion")
    if not confusion:
        return ""
    return f"{percent(sum(confusion[1]) / run.block['image']['n_images'], 1)} of the images are malignant."


def _pseudonyms(run: RunFiles) -> str:
    if run.config is None:
        return ""
    if run.config.data.pseudonymise:
        return "Patient ids and paths are replaced by pseudonyms under a secret key."
    return "The run replaced no ids."


def _results(run: RunFiles) -> dict[str, str]:
    place, image = f"{run.headline}.image", run.block["image"]
    found = []
    for name in ("auroc", "auprc", "sensitivity", "specificity", "ppv", "npv", "brier", "ece"):
        figure = read_figure(image, name, place=place)
        interval = f" ({interval_of(figure).text})" if figure.interval else ""
        found.append(f"{NAMES[name][0]} {value_of(figure).text}{interval}")
    falls = [
        f"{results.split_title(run, split)} {decimal(read_figure(run.metrics[split]['image'], 'auroc').value)}"
        for split in SPLITS
        if split in run.metrics
    ]
    counts = image.get("confusion")
    return {
        "figures": f"{'; '.join(found)}.",
        "fall": f"AUROC: {', '.join(falls)}.",
        "confusion": f"Benign called benign {count(counts[0][0])}, called malignant {count(counts[0][1])}; malignant "
        f"called benign {count(counts[1][0])}, called malignant {count(counts[1][1])}."
        if counts
        else "",
        "measures": "Discrimination: AUROC, AUPRC. At the operating point: sensitivity, specificity, PPV, NPV. "
        "Calibration: Brier score, slope, intercept, reliability. Usefulness: decision curve.",
        "subgroups": _subgroups(run),
        "spread": _spread(run),
        "recalibration": _recorded(run, "recalibration") or "None in this run.",
        "external": _recorded(run, "drift") or ("External data." if run.is_external else "None in this run."),
        "limits": _limits(run),
    }


def _recorded(run: RunFiles, block: str) -> str:
    text = (run.metrics.get(block) or {}).get("text")
    return sentence(str(text)) if text else ""


def _subgroups(run: RunFiles) -> str:
    columns = run.block.get("subgroups") or {}
    differences = [entry.get("difference") or {} for _, entry in sorted(columns.items())]
    texts = [(entry.get("auroc") or {}).get("text", "") for entry in differences]
    if not columns:
        return "No subgroups in this run."
    return " ".join([f"Subgroups by {', '.join(sorted(columns))}.", *(sentence(text) for text in texts if text)])


def _spread(run: RunFiles) -> str:
    parts = []
    for label, entry in (
        ("folds", (run.metrics.get("across_folds") or {}).get("auroc")),
        ("seeds", ((run.metrics.get("seeds") or {}).get("figures") or {}).get("auroc")),
    ):
        if entry and entry.get("mean") is not None:
            mean, deviation = decimal(entry["mean"]), decimal(entry["sd"])
            parts.append(f"AUROC over {label}: mean {mean}, standard deviation {deviation}.")
    return " ".join(parts)


def _limits(run: RunFiles) -> str:
    stamp = results.banner(run, stamp=OPTIMISTIC_STAMP)
    parts = [stamp.title, run.interval.get("note")] if stamp else [run.interval.get("note")]
    if run.in_context:
        parts.append(
            "Context needs the patches of a slide with their places; a patch by itself has figures of its own."
        )
    return " ".join(sentence(str(part)) for part in parts if part)


def _design(run: RunFiles) -> dict[str, str]:
    config, methods = run.training, dict(provenance.methods(run))
    libraries = dict(reproduction.machine(run))
    seed = run.protocol.get("seed")
    return {
        "seed": f"Weights are drawn at random, seed {seed}." if seed is not None and config is not None else "",
        "ensemble": _ensemble(run, methods.get("Second network")),
        "chosen": f"What decides was chosen on {chosen_on(run)}{f', {by_whom(run)}' if run.crossfit else ''}.",
        "context": _context(run, methods.get("Slide context")),
        "balance": _balance(run),
        "abstention": plain(promise(run, run.metrics.get("abstention") or {})),
        "software": ". ".join(f"{term}: {libraries[term]}" for term in _SOFTWARE if term in libraries) + ".",
        "command": f"Command: {run.environment['command']}" if run.environment.get("command") else "",
        "bundle": "The bundle holds the weights, the network as ONNX, every setting that decides, and checksums."
        if (run.folder / "bundle").is_dir()
        else "",
        "predictions": "predictions.csv holds each image's logit, calibrated probability and decision"
        + (", in the context of its slide and by itself." if run.in_context else "."),
        "predictors": "The pixels of an image and of its neighbours in the slide, and nothing else."
        if run.in_context
        else "The pixels of one image, and nothing else.",
        "judgement": "The run asks no person for a judgement.",
        "blind": "The model is given the pixels alone"
        + (", and where the patches lie on their slide." if run.in_context else "."),
        "input": "A file that cannot be read as an image is refused; no image is refused for its look."
        if config is not None
        else "",
    }


def _ensemble(run: RunFiles, second: str | None) -> str:
    if mean := provenance.networks(run):
        found = sentence(mean.replace("such ", ""))
        if run.crossfit:
            found += " Each was trained without another part of train and validation."
    elif run.environment.get("model"):
        found = "One network sees the patch." if second else "A single network."
    else:
        return ""
    return f"{found} Besides, {second}; their mean logit decides." if second else found


def _context(run: RunFiles, line: str | None) -> str:
    if line is None:
        return ""
    image, alone = (decimal(read_figure(run.block[name], "auroc").value) for name in ("image", "image_alone"))
    return f"Slide context: {line}. AUROC in context {image}, of a patch by itself {alone}."


_SOFTWARE = ("Clearmargin", "Python", "Libraries", "Platform", "Device")


def _balance(run: RunFiles) -> str:
    if run.training is None:
        return ""
    balance = run.training.train.balance
    return "Classes were not balanced." if balance == "none" else f"Classes were balanced by {balance}."
