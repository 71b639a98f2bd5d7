"""No number reaches a reader that is not computed again here, by other code, from the run's own files.

A number in the page stands in an element with its key; what stands in none must be one of CONSTANTS, or, in the
sections about data and methods, a number of the run's own files (configuration, history, environment, audit).
"""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.bundle.small_bundle import model_file
from tests.report.conftest import describe
from tests.report.recompute import Recomputed, Unknown
from tests.report.test_html import NAMES

from clearmargin.bundle.card import model_card
from clearmargin.config import setting_names
from clearmargin.report.markdown import write_markdown
from clearmargin.report.run_files import read_run
from clearmargin.report.write import write_forms, write_report

CONSTANTS = {"95", "0.5", "0", "1", "15", "10", "20", "2024"}
"""Of the wording itself: 95 % intervals, the naive threshold, ends of scales, bins, few patients, CLAIM 2024."""
NUMBER = re.compile(r"(?<![\w.#/-])−?\d+(?:,\d{3})*(?:\.\d+)?(?![\w.]*\w*[a-z_/])")
PROVENANCE = {"methods", "reproduce", "data", "about"}


class Numbers(HTMLParser):
    """(key, text) of every element with a key, and (section, text) of every other text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.keyed: list[tuple[str, str]] = []
        self.free: list[tuple[str, str]] = []
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("meta", "img"):
            return
        self._open.append((tag, dict(attrs)))
        if "data-figure" in dict(attrs):
            self.keyed.append((str(dict(attrs)["data-figure"]), ""))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        tags = [tag for tag, _ in self._open]
        attributes = [attributes for _, attributes in self._open]
        if any("data-figure" in each for each in attributes):
            key, text = self.keyed[-1]
            self.keyed[-1] = (key, text + data)
        elif not {"style", "svg", "title", "h1"} & set(tags) and not any(
            each.get("class") == "where" for each in attributes
        ):
            about = "about" if any(each.get("class") == "about" for each in attributes) else ""
            section = next((str(each["id"]) for each in attributes if each.get("id")), about)
            self.free.append((section, data))


def shows(text: str, value: Any) -> bool:
    """Whether a text is what one gets by rounding the value."""
    if isinstance(value, str):
        return text.strip().rstrip(".").lower() == value.strip().rstrip(".").lower()
    if isinstance(value, tuple | list):
        parts = re.split(r"–| to ", text)
        return len(parts) == 2 and all(shows(part, end) for part, end in zip(parts, value, strict=True))
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return text == "—"
    token = re.search(r"([<>]?)([−-]?)(\d[\d,]*\.?(\d*))", text)
    if token is None:
        return False
    shown = float(token[3].replace(",", "")) * (-1 if token[2] else 1)
    scale = 100 if "%" in text else 1
    if token[1]:
        step = 10.0 ** -len(token[4])
        return shown - step < value * scale < shown if token[1] == "<" else shown < value * scale < shown + step
    return abs(shown - value * scale) <= 0.5000001 * 10.0 ** -len(token[4])


def wrong_numbers(page: str, run: Recomputed) -> Iterator[str]:
    """One line for each number of the page that is not what it should be."""
    numbers = Numbers(page)
    assert len(numbers.keyed) > 100
    for key, text in numbers.keyed:
        if text not in ("—", "") and (fault := fault_of(key, text, run)):
            yield f"{key}: {fault}"
    given = given_numbers(run)
    for section, text in numbers.free:
        for token in NUMBER.findall(text):
            if token not in CONSTANTS and not (section in PROVENANCE and is_one_of(token, given)):
                yield f"#{section}: {token} in '{' '.join(text.split())[:80]}' has no key"


def fault_of(key: str, text: str, run: Recomputed) -> str:
    """What is wrong with the text under a key, or nothing."""
    if key.endswith((".ci", ".ci_fixed")) or re.search(r"\.ci\.\d+$", key):
        stored = run.lookup(key)
        return "" if shows(text, stored) else f"{text} is not {stored}"
    try:
        value = run.value(key)
    except Unknown:
        return "nothing computes it"
    if key.endswith(".classification_report"):
        return "" if text.split() == value.split() else "differs"
    if key.endswith(".ece_expected"):  # by simulation
        return "" if abs(float(text) - value) < 0.2 * value else f"{text} is not about {value}"
    return "" if shows(text.removeprefix("stored (").removesuffix(")"), value) else f"{text} is not {value}"


def given_numbers(run: Recomputed) -> set[float]:
    """What the sections on data and methods may say: numbers of config, history, audit and environment, all listed."""
    audit, environment = (json.loads((run.folder / f"{name}.json").read_text()) for name in ("audit", "environment"))
    config = tomllib.loads((run.folder / "config.toml").read_text())
    history = pd.read_csv(run.folder / "history.csv")
    counts = [step["count"] for step in audit["flow"]]
    given = {float(count) for count in counts} | {float(abs(a - b)) for a, b in itertools.pairwise(counts)}
    given |= set(leaves(audit["counts"])) | {100 * audit["counts"]["malignant"] / audit["counts"]["images"]}
    given |= {float(len(audit["quarantine"])), *(float(len(finding["paths"])) for finding in audit["findings"])}
    given |= set(leaves([finding["message"] for finding in audit["findings"]]))
    given |= set(leaves(config)) | {float(len(history)), float(history["epoch"][history["validation_loss"].idxmin()])}
    sections = [name.partition(".")[0] for name in setting_names() if "." in name]
    given |= {float(len(setting_names()) - sum(section not in config for section in sections))}
    given |= {255.0}  # a grey value is divided by 255
    given |= set(leaves(environment))
    for seconds in environment["seconds"].values():
        given |= {seconds, *map(float, divmod(round(seconds), 60))}
    stored = run.stored
    given |= set(leaves([stored["operating_point"], stored["protocol"], stored["interval"]["resamples"]]))
    given |= set(leaves(stored.get("context", {})))
    given |= set(
        leaves([stored["calibration"]["temperature"], stored["abstention"], stored.get("seeds", {}).get("seeds", [])])
    )
    return given | set(leaves(stored["test"]["interval"]["note"]))


def leaves(values: Any) -> Iterator[float]:
    """Every number in nested values, those in texts too."""
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, list):
        for each in values:
            yield from leaves(each)
    elif isinstance(values, int | float):
        yield float(values)
    elif isinstance(values, str):
        yield from map(float, re.findall(r"(?<![\w.])\d+(?:\.\d+)?", values))


def is_one_of(token: str, given: set[float]) -> bool:
    """Whether a number is one of those given, rounded."""
    shown = float(token.replace(",", "").replace("\N{MINUS SIGN}", ""))
    return any(abs(value - shown) <= 0.5000001 * 10.0 ** -len(token.partition(".")[2]) for value in given)


@pytest.fixture(scope="module", params=["run", "full_run", "context_run"])
def folder(request: pytest.FixtureRequest) -> Path:
    return Path(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def recomputed(folder: Path) -> Recomputed:
    return recompute(folder)


def recompute(folder: Path) -> Recomputed:
    run = Recomputed(folder)
    run.sites = describe(run.table).set_index("path")["site"]
    return run


@pytest.fixture(scope="module")
def page_text(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def test_every_number_of_the_page_is_computed_again(page_text: str, recomputed: Recomputed) -> None:
    assert list(wrong_numbers(page_text, recomputed)) == []


def test_the_threshold_is_the_one_that_decided(recomputed: Recomputed) -> None:
    table = recomputed.table[recomputed.table["decision"] != "abstain"]
    malignant = table["decision"] == "malignant"
    assert (
        table.loc[~malignant, "probability"].max() < recomputed.threshold <= table.loc[malignant, "probability"].min()
    )


def test_the_temperature_is_the_one_that_made_the_probabilities(recomputed: Recomputed) -> None:
    calibration = recomputed.stored["calibration"]
    expected = 1 / (1 + np.exp(-recomputed.table["logit"] / calibration["temperature"]))
    assert np.abs(expected - recomputed.table["probability"]).max() < 1e-12


def test_the_context_is_the_one_that_made_the_logits(context_run: Path) -> None:
    again = recompute(context_run)
    context = again.stored["context"]
    table = again.table.assign(both=(again.table["logit_alone"] + again.table["logit_field"]) / 2)
    for _, own in table.groupby("slide_id"):
        places = own[["x", "y"]].to_numpy() / context["step"]
        apart = np.linalg.norm(places[:, None] - places[None, :], axis=2)
        weights = np.exp(-0.5 * (apart / context["scale"]) ** 2)
        assert np.abs(weights @ own["both"] / weights.sum(axis=1) - own["logit"]).max() < 1e-9


def test_the_threshold_of_a_patch_by_itself_is_the_one_that_decided(context_run: Path) -> None:
    again = recompute(context_run)
    threshold = again.stored["context"]["alone"]["operating_point"]["threshold"]
    table = again.table[again.table["decision_alone"] != "abstain"]
    assert ((table["decision_alone"] == "malignant") == (table["probability_alone"] >= threshold)).all()


INTERVALS = [
    "test.image.auroc",
    "test.image.auprc",
    "test.image.sensitivity",
    "test.image.specificity",
    "test.image.accuracy",
    "test.image.brier",
    "test.image.ppv",
    "test.image.npv",
    "test.abstention.covered",
    "test.abstention.deferred",
    "test.abstention.error_decided",
    "test.risk_coverage.area",
    "test.image.calibration_intercept",
]
OF_THE_FULL_RUN = [
    "test.slide.auroc",
    "test.patient.accuracy",
    "test.at_prevalence.ppv",
    "test.at_prevalence.npv",
    "test.subgroups.site.groups.0.auroc",
    "test.subgroups.site.groups.1.sensitivity",
]


@pytest.mark.parametrize("key", INTERVALS)
def test_an_interval_is_about_that_of_another_bootstrap(key: str, run: Path) -> None:
    check_interval(key, recompute(run))


@pytest.mark.parametrize("key", OF_THE_FULL_RUN)
def test_an_interval_of_a_level_or_group_is_about_that_of_another_bootstrap(key: str, full_run: Path) -> None:
    check_interval(key, recompute(full_run))


def check_interval(key: str, run: Recomputed) -> None:
    """Ours are corrected for few patients, so they may be wider than percentiles, but they are of the same figure."""
    entry = run.lookup(key)
    low, high = entry.get("ci_fixed") or entry["ci"]
    other_low, other_high = run.bootstrap(key)
    assert low <= entry["value"] <= high
    shared = min(high, other_high) - max(low, other_low)
    assert shared >= 0.6 * (other_high - other_low)
    assert high - low <= 4 * (other_high - other_low) + 0.05


def test_bands_of_curves_are_about_those_of_another_bootstrap(run: Path) -> None:
    again = recompute(run)
    curve = again.stored["test"]["decision_curve"]
    for index in (9, 29, 49):
        low, high = curve["ci"][index]
        other_low, other_high = again.bootstrap(f"test.decision_curve.{index}")
        assert min(high, other_high) - max(low, other_low) >= 0.6 * (other_high - other_low)
    bins = again.stored["test"]["calibration"]["reliability"]
    for index in (1, 5):
        low, high = bins[index]["ci"]
        other_low, other_high = again.bootstrap(f"test.calibration.reliability.{index}")
        assert min(high, other_high) - max(low, other_low) >= 0.6 * (other_high - other_low)


def test_the_confusion_matrix_in_the_picture_is_that_of_the_table(run: Path) -> None:
    from sklearn.metrics import confusion_matrix

    again = recompute(run)
    labels, _, called = again.cases(again.rows("test"), "image")
    drawn = re.search(
        r"<svg[^>]*Confusion matrix.*?</svg>", (run / "report.html").read_text(encoding="utf-8"), re.DOTALL
    )
    assert drawn is not None
    found = re.findall(r">\s*(\d+)\s*</text>", drawn[0])
    assert found == [str(count) for count in confusion_matrix(labels, called).ravel()]


@pytest.mark.parametrize(
    ("place", "change"),
    [
        (("test", "image", "auroc", "value"), 0.011),
        (("validation", "image", "loss"), 0.011),
        (("test", "abstention", "deferred", "value"), 0.011),
        (("test", "within_patients", "accuracy", "median"), 0.011),
        (("test", "image", "n_patients"), 1),
    ],
)
def test_a_wrong_number_is_noticed(
    place: tuple[str, ...], change: float, tmp_path: Path, run: Path, load_image: Any
) -> None:
    folder = Path(shutil.copytree(run, tmp_path / "run"))
    stored = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    *sections, leaf = place
    block = stored
    for name in sections:
        block = block[name]
    block[leaf] += change
    (folder / "metrics.json").write_text(json.dumps(stored), encoding="utf-8")
    page = write_report(folder, load_image=load_image).read_text(encoding="utf-8")
    assert any(line.startswith(".".join(place)) for line in wrong_numbers(page, recompute(folder)))


def test_a_number_that_nothing_computes_is_noticed(page_text: str, recomputed: Recomputed) -> None:
    made_up = page_text.replace(
        "<h2>How sure</h2>", '<h2>How sure</h2><p>At 0.777 <b data-figure="test.charm">3</b></p>'
    )
    assert [line.split(" in ")[0] for line in wrong_numbers(made_up, recomputed)] == [
        "test.charm: nothing computes it",
        "#sure: 0.777",
    ]


def squash(text: str) -> str:
    return "".join(text.split())


def unescaped(line: str) -> str:
    return re.sub(r"\\([\\`*_|<\[\]#])", r"\1", line)


def test_what_markdown_says_stands_in_the_page(folder: Path, page_text: str) -> None:
    from tests.report.conftest import Page

    page = Page(page_text)
    whole = squash("".join("".join(texts) for tag, _, texts in page.elements if tag == "body"))
    rows = {tuple(map(squash, row[1:])) for table in page.tables() for row in table}
    path = write_markdown(read_run(folder))
    found = 0
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("|---") or not re.search(r"\d", line):
            continue
        found += 1
        if line.startswith("| "):
            cells = tuple(squash(unescaped(cell)) for cell in re.split(r"(?<!\\)\|", line)[2:-1])
            assert any(row[: len(cells)] == cells for row in rows), line
        else:
            text = re.sub(r"^(#+ |(> )?\*\*[^*]*\*\*: |- [^:]*: )", "", line)
            assert squash(unescaped(text).replace("**", "")) in whole, line
    assert found > 60


def test_the_table_for_latex_holds_the_headline(folder: Path, recomputed: Recomputed) -> None:
    [path] = write_forms(folder, "latex-table")
    text = path.read_text(encoding="utf-8")
    rows = [line.removesuffix(r" \\").split(" & ") for line in text.splitlines() if line.endswith(r"\\")][1:]
    assert [row[0] for row in rows] == list(NAMES)
    for label, value, interval, *alone in rows:
        if alone:
            key = f"test.image_alone.{NAMES[label]}"
            assert shows(alone[0].replace("---", "—"), recomputed.value(f"{key}.value"))
        key = f"test.image.{NAMES[label]}"
        assert shows(value, recomputed.value(f"{key}.value"))
        assert shows(interval.replace("--", "–").replace(r"\textgreater{}", ">"), recomputed.lookup(f"{key}.ci"))


def test_every_number_of_the_checklists_stands_in_the_page(folder: Path, page_text: str) -> None:
    from tests.report.conftest import Page

    page = Page(page_text)
    shown = set(NUMBER.findall("".join("".join(texts) for tag, _, texts in page.elements if tag == "body")))
    shown |= set(re.findall(r">(\d+)</text>", page_text)) | set(re.findall(r"\d+(?:\.\d+)?", page.source))
    for path in sorted((folder / "checklists").glob("*.md")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("| ") and not line.startswith("| Item"):
                answer = re.split(r"(?<!\\)\|", line)[5]
                assert set(NUMBER.findall(answer)) <= shown, line


def test_every_figure_of_the_model_card_is_computed_again(folder: Path, recomputed: Recomputed) -> None:
    model = model_file()
    metrics = recomputed.stored["test"]["image"]
    card = model_card(model.model_copy(update={"lineage": model.lineage.model_copy(update={"metrics": metrics})}))
    rows = re.findall(r"^\| ([\w ]+) \| ([\d.−-]+) \| ([\d.−-]+) to ([\d.−-]+) \|$", card, re.MULTILINE)
    assert len(rows) == 11
    for label, value, low, high in rows:
        name = {"Brier score": "brier"}.get(label, label.lower().replace(" ", "_"))
        assert shows(value, recomputed.value(f"test.image.{name}.value"))
        assert shows(f"{low} to {high}", recomputed.lookup(f"test.image.{name}.ci"))
    n_images, n_patients = len(recomputed.rows("test")), recomputed.rows("test")["patient_id"].nunique()
    assert f"{n_images:,} images of {n_patients} patients" in card
    rest = re.sub(r"^\|.*\|$", "", card, flags=re.MULTILINE).replace(
        f"{n_images:,} images of {n_patients} patients", ""
    )
    given = set(leaves(json.loads(model.to_json())))
    for token in NUMBER.findall(rest):
        assert token in CONSTANTS | {"8", "16"} or is_one_of(token, given), token
