import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearmargin.evaluation.metrics import calls
from clearmargin.evaluation.reliability import reliability_bins
from clearmargin.report import evidence_plots, plots
from clearmargin.report.svg import Picture

RNG = np.random.default_rng(5)
LABELS = RNG.integers(0, 2, 400)
PROBABILITIES = np.clip(RNG.normal(0.35 + 0.3 * LABELS, 0.2), 0, 1)
HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2, 3],
        "train_loss": [0.7, 0.5, 0.4],
        "train_accuracy": [0.6, 0.7, 0.8],
        "validation_loss": [0.7, 0.55, 0.6],
        "validation_accuracy": [0.6, 0.7, 0.69],
        "validation_auroc": [0.7, 0.8, 0.79],
    }
)
PATIENTS = pd.DataFrame(
    {
        "patient_id": ["P-1", "P-2", "P-3"],
        "true_share": [0.1, 0.5, 1.0],
        "called_share": [0.3, 0.5, 0.8],
        "auroc": [0.6, 0.9, np.nan],
        "few": [False, True, False],
    }
)
BINS = reliability_bins(LABELS, PROBABILITIES, n_bins=10).rows()
DECISION_CURVE = {
    "threshold": [0.1, 0.5, 0.9],
    "model": [0.4, 0.2, None],
    "ci": [[0.3, 0.5], [0.1, 0.3], None],
    "treat_all": [0.4, 0.0, -4.0],
}
RISK_COVERAGE = {"decided": [1.0, 0.5], "error": [0.2, 0.1], "ci": [[0.1, 0.3], None]}
PICTURES: Mapping[str, Callable[[], Picture]] = {
    "training": lambda: plots.training_curves(HISTORY, kept_epoch=2),
    "roc": lambda: plots.roc(LABELS, PROBABILITIES, called=PROBABILITIES >= 0.4, sensitivity_interval=(0.7, 0.9)),
    "precision_recall": lambda: plots.precision_recall(LABELS, PROBABILITIES, called=PROBABILITIES >= 0.4),
    "confusion": lambda: plots.confusion([[90, 10], [20, 80]]),
    "reliability": lambda: evidence_plots.reliability(BINS),
    "decision_curve": lambda: evidence_plots.decision_curve(DECISION_CURVE, threshold=0.4),
    "risk_coverage": lambda: evidence_plots.risk_coverage(RISK_COVERAGE, point=(0.8, 0.15)),
    "histogram": lambda: plots.probability_histogram(LABELS, PROBABILITIES, threshold=0.4),
    "patient_shares": lambda: plots.patient_shares(PATIENTS),
    "patient_scores": lambda: plots.patient_scores(PATIENTS, column="auroc", label="AUROC", overall=0.8),
}
DRAWINGS: Mapping[str, Callable[[], str]] = {name: lambda draw=draw: draw().svg for name, draw in PICTURES.items()}
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(params=DRAWINGS)
def draw(request: pytest.FixtureRequest) -> Callable[[], str]:
    return DRAWINGS[request.param]


def test_the_same_numbers_give_the_same_text(draw: Callable[[], str]) -> None:
    assert draw() == draw()


def test_a_drawing_is_well_formed_and_says_what_it_is(draw: Callable[[], str]) -> None:
    root = ElementTree.fromstring(draw())
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    assert root.findtext(f"{SVG}title") == root.get("aria-label") != ""


def test_a_drawing_holds_no_date_no_style_sheet_and_no_address(draw: Callable[[], str]) -> None:
    text = draw().replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"<style|<metadata|<script|http|xlink|<!|<\?", text)
    assert set(re.findall(r"url\((.)", text)) <= {"#"}


def test_colours_are_variables_so_that_light_and_dark_both_work(draw: Callable[[], str]) -> None:
    text = re.sub(r"var\(--plot-[a-z]+, #[0-9a-f]+\)", "", draw())
    assert not re.search(r"#[0-9a-fA-F]{6}\b|\bwhite\b|\bblack\b", text)


def test_text_stays_text_in_the_font_of_the_page(draw: Callable[[], str]) -> None:
    root = ElementTree.fromstring(draw())
    assert list(root.iter(f"{SVG}text"))
    assert "font-family" not in draw()


def test_ids_are_unique_across_all_drawings_and_every_reference_resolves() -> None:
    ids: list[str] = []
    for draw in DRAWINGS.values():
        text = draw()
        own = re.findall(r'\bid="([^"]+)"', text)
        assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)) <= {(name, "") for name in own} | {
            ("", name) for name in own
        }
        ids += own
    assert len(ids) == len(set(ids))


def test_settings_of_the_user_neither_matter_nor_change(draw: Callable[[], str]) -> None:
    plain = draw()
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False, "lines.linewidth": 9, "svg.fonttype": "path"}):
        before = dict(matplotlib.rcParams)
        assert draw() == plain
        assert dict(matplotlib.rcParams) == before


def test_pyplot_and_torch_are_never_imported() -> None:
    code = (
        "import sys, clearmargin.report.html, clearmargin.report.plots as plots; plots.confusion([[1, 2], [3, 4]]); "
        "sys.exit(bool({'matplotlib.pyplot', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("threshold", [0.2, 0.4, 0.65])
def test_the_operating_point_stands_where_sensitivity_and_specificity_say(threshold: float) -> None:
    root = ElementTree.fromstring(plots.roc(LABELS, PROBABILITIES, called=calls(PROBABILITIES, threshold)).svg)
    frame = {key: float(value) for key, value in next(root.iter(f"{SVG}rect")).items()}
    dots = [dot for dot in root.iter(f"{SVG}use") if "var(--plot-ink" in dot.get("style", "")]
    naive, chosen = (
        (
            (float(dot.get("x", "nan")) - frame["x"]) / frame["width"],
            (frame["y"] + frame["height"] - float(dot.get("y", "nan"))) / frame["height"] * 1.005,
        )
        for dot in dots[:2]
    )
    for place, at in ((naive, 0.5), (chosen, threshold)):
        called = at <= PROBABILITIES
        expected = called[LABELS == 0].mean(), called[LABELS == 1].mean()
        assert place == pytest.approx(expected, abs=1e-3)


def texts(picture: Picture) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(picture.svg).iter(f"{SVG}text")]


def test_confusion_shows_counts_and_shares_of_each_true_class() -> None:
    assert {"1,234", "61.7 %", "766", "38.3 %", "0", "0.0 %", "5", "100.0 %"} <= set(
        texts(plots.confusion([[1234, 766], [0, 5]]))
    )


def test_confusion_of_an_absent_class_shows_no_made_up_share() -> None:
    assert texts(plots.confusion([[3, 1], [0, 0]])).count("—") == 2


IDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=11).filter(
    lambda text: text not in {"0", "0.25", "0.5", "0.75", "1", "true", "called"}
)


@settings(max_examples=15, deadline=None)
@given(st.lists(IDS, min_size=1, max_size=4))
def test_any_patient_id_stands_in_the_drawing_as_it_is(names: list[str]) -> None:
    frame = pd.DataFrame({"patient_id": names, "true_share": 0.5, "called_share": 0.5})
    assert [text for text in texts(plots.patient_shares(frame)) if text in names] == names


def test_a_long_patient_id_keeps_its_beginning_and_its_end() -> None:
    frame = PATIENTS.head(1).assign(patient_id="TCGA-A1-A0SB-01Z-00-DX1")
    assert "TCGA-A…-DX1" in texts(plots.patient_shares(frame))


def test_one_epoch_and_no_auroc_can_be_drawn() -> None:
    assert "AUROC" not in texts(plots.training_curves(HISTORY.head(1).drop(columns="validation_auroc")))


def test_the_kept_epoch_is_named() -> None:
    assert "epoch (weights kept: 2)" in texts(plots.training_curves(HISTORY, kept_epoch=2))


def test_a_threshold_above_every_probability_can_be_drawn() -> None:
    for draw in (plots.roc, plots.precision_recall):
        assert draw(LABELS, PROBABILITIES, called=np.zeros(len(LABELS), dtype=bool)).svg.startswith("<svg")
    assert plots.probability_histogram(LABELS, PROBABILITIES, threshold=1.5).svg.startswith("<svg")


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("kind", ["svg", "pdf"])
def test_a_file_is_the_same_each_time_and_has_no_stand_in_for_a_colour(name: str, kind: str, tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.{kind}" for number in (1, 2)]
    for file in files:
        PICTURES[name]().save(file)
    first, second = (file.read_bytes() for file in files)
    assert first == second
    assert not re.search(rb"CreationDate|<dc:date>", first)
    if kind == "svg":
        assert not re.search(rb"#0[1-6]0[1-6]0[1-6]|var\(", first)
        assert b"#a5195f" in first
    else:
        assert first.startswith(b"%PDF")


def test_a_name_with_letters_that_the_font_lacks_is_saved(tmp_path: Path) -> None:
    frame = PATIENTS.head(2).assign(patient_id=["患者-01", "$x_1$"])
    plots.patient_shares(frame).save(tmp_path / "shares.pdf")
    assert (tmp_path / "shares.pdf").stat().st_size > 1000


def test_a_curve_without_any_interval_can_be_drawn() -> None:
    curve = DECISION_CURVE | {"ci": [None] * 3}
    assert evidence_plots.decision_curve(curve, threshold=0.4).svg
    assert evidence_plots.risk_coverage(RISK_COVERAGE | {"ci": [None, None]}, point=None).svg
