"""What the report says of a patch among its neighbours and by itself, and of networks that were cross-fitted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.report.conftest import THRESHOLD, THRESHOLD_ALONE, Page, simulate, with_places

from clearmargin.report.checklist import write_checklists
from clearmargin.report.facts import gather_facts
from clearmargin.report.provenance import kept_epoch, methods
from clearmargin.report.run_files import read_run
from clearmargin.settings import RunConfig, TrainSettings

Report = Callable[..., Page]
REASON = "patients left out gain nothing by it (log loss 0.4000 alone, 0.5000 in context)"
UNSEEN = "by networks that had not seen the patient"


@pytest.fixture(scope="module")
def told(context_run: Path) -> Page:
    return Page((context_run / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def stored(context_run: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((context_run / "metrics.json").read_text(encoding="utf-8"))
    return values


def section(page: Page, anchor: str) -> str:
    return " ".join(page.texts(f"#{anchor}")[0].split())


def test_the_answer_says_that_it_is_in_context(told: Page) -> None:
    assert "of 10 patients never seen in training, each in the context of its slide, AUROC is" in section(
        told, "answer"
    )


def test_figures_in_context_stand_beside_those_of_a_patch_by_itself(told: Page, stored: dict[str, Any]) -> None:
    [table] = [table for table in told.tables() if "By itself" in table[0]]
    assert table[0][1::2] == ["In context", "By itself"]
    for label, name in (("AUROC", "auroc"), ("Sensitivity (recall)", "sensitivity"), ("Brier score", "brier")):
        [row] = [row for row in table if row[0] == label]
        figures = [stored["test"][block][name] for block in ("image", "image_alone")]
        assert row[1::2] == [f"{figure['value']:.3f}" for figure in figures]
        assert row[2::2] == ["–".join(f"{end:.3f}" for end in figure["ci"]) for figure in figures]
    assert table[-1] == ["Threshold", f"{THRESHOLD:.3f}", "—", f"{THRESHOLD_ALONE:.3f}", "—"]


def test_how_neighbours_count_is_told_with_field_and_scale(told: Page) -> None:
    text = section(told, "context")
    assert "the other the field of 5 × 5 patches around it" in text
    assert "(a Gaussian of 0.75 steps of 25 px)" in text
    assert "How far they count was chosen on train and validation, out of fold" in text
    assert "An image whose place is not known is decided by itself, at the threshold 0.430." in text


def test_both_regions_of_cannot_tell_are_told(told: Page, stored: dict[str, Any]) -> None:
    text = section(told, "unsure")
    for region in (stored["abstention"], stored["context"]["alone"]["abstention"]):
        assert f"For probabilities in {region['low']:.3f}–{region['high']:.3f} the answer is cannot tell." in text
    assert f"It rests on 24 patients of train and validation, out of fold, {UNSEEN}, and on new ones" in text
    assert "A patch by itself. For probabilities" in text


def test_both_operating_points_stand_in_the_methods(context_run: Path) -> None:
    terms = dict(methods(read_run(context_run)))
    assert "in context; balanced; threshold 0.3100;" in terms["Operating point"]
    assert "threshold 0.4300" in terms["Operating point of a patch by itself"]
    assert all(
        terms[f"Operating point{whose}"].endswith("chosen on train and validation, out of fold")
        for whose in ("", " of a patch by itself")
    )
    assert "Gaussian of 0.75 steps of 25 px" in terms["Slide context"]


def test_where_neighbours_do_not_count_the_reason_is_told(report: Report) -> None:
    page = report(table=with_places(simulate()), changes={"context": {"not_applicable": REASON}})
    assert f"Each patch is decided by itself; its neighbours do not count: {REASON}." in section(page, "context")
    assert "each in the context" not in section(page, "answer")


@pytest.mark.parametrize("changes", [{}, {"context": {"not_applicable": "evaluate.context is none"}}])
def test_nothing_is_said_of_context_where_places_are_not_known(changes: dict[str, Any], report: Report) -> None:
    page = report(changes=changes)
    assert page.texts("#context") == []
    assert "context" not in section(page, "answer")


def test_train_and_validation_of_cross_fitted_networks_are_said_to_be_out_of_fold(told: Page) -> None:
    [table] = [table for table in told.tables() if "test" in table[0]]
    assert table[0] == ["Figure", "train, out of fold", "validation, out of fold", "test"]
    text = section(told, "sure")
    assert f"Train and validation are judged {UNSEEN}, test by the mean of all networks." in text
    assert "The threshold was chosen on train and validation, out of fold, and travels" in text
    assert "by heart" not in text


def test_the_networks_are_told(context_run: Path) -> None:
    terms = dict(methods(read_run(context_run)))
    assert terms["Model"] == "residual; the mean logit of 3 such networks; 123,456 parameters in all"
    assert terms["Second network"].startswith("as many of the same name that see the field of 5 × 5 patches")
    assert f"what decides is chosen out of fold ({UNSEEN})" in terms["Cross-fitting"]
    assert "by networks that had not seen the image" in dict(methods(read_run(by_image(context_run))))["Cross-fitting"]


def by_image(folder: Path) -> Path:
    """The same run, its networks cross-fitted without regard to patients."""
    target = folder.with_name("by-image")
    target.mkdir()
    for name in ("metrics.json", "predictions.csv"):
        (target / name).write_bytes((folder / name).read_bytes())
    (target / "config.toml").write_text((folder / "config.toml").read_text().replace('by = "patient"', 'by = "image"'))
    return target


def test_the_curves_of_several_networks_are_their_mean_and_mark_no_epoch(told: Page, context_run: Path) -> None:
    text = section(told, "curves")
    assert "The mean of 3 networks, each validated on the part that it left out." in text
    assert "weights kept" not in text
    assert kept_epoch(read_run(context_run)) is None
    assert "each network's own epoch kept (best validation loss)" in dict(methods(read_run(context_run)))["Training"]


def test_networks_that_all_end_with_the_last_epoch_have_it_marked(build_run: Callable[..., Any]) -> None:
    train = TrainSettings(epochs=4, restore_best=False)
    build = build_run("last", table=with_places(simulate(images_per_patient=24)), crossfit=3)
    build.config = RunConfig(seed=11, train=train)
    assert kept_epoch(read_run(build.write())) == 4


def test_the_checklists_tell_members_context_and_what_decided(context_run: Path) -> None:
    facts = gather_facts(read_run(context_run))
    assert facts["ensemble"].startswith("The mean logit of 3 networks. Each was trained without another part")
    assert "AUROC in context" in facts["context"]
    assert facts["chosen"] == f"What decides was chosen on train and validation, out of fold, {UNSEEN}."
    assert "train, out of fold " in facts["fall"]
    texts = [path.read_text(encoding="utf-8") for path in write_checklists(read_run(context_run))]
    assert all("What decides was chosen on train and validation, out of fold" in text for text in texts)
