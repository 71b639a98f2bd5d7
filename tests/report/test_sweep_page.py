"""The page of a sweep: the tested figure first, the flattered one named so, nothing that the browser refuses."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from clearmargin.report import sweep_plots
from clearmargin.report.sweep_page import (
    answer,
    estimates,
    protocol,
    render_sweep_page,
    winners_curse,
    write_sweep_page,
)

HOSTILE = "</td><script>alert(1)</script>" + "x" * 300

SPACE: dict[str, Any] = {
    "model.name": ["residual", HOSTILE],
    "train.batch_size": {"low": 16, "high": 64, "step": 16},
    "train.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
}


def trials(n: int = 8) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    rows = [
        {
            "number": number,
            "state": "complete",
            "baseline": number == 0,
            "model.name": "residual" if number % 2 else HOSTILE,
            "train.batch_size": 16 + 16 * (number % 4),
            "train.learning_rate": float(10 ** generator.uniform(-4, -2)),
            "value": 0.7 + 0.02 * (number % 5),
            "fold_1": 0.7,
            "fold_2": 0.7 + 0.04 * (number % 5),
            "epochs": 4,
            "seconds": 12.5,
            "reason": "",
        }
        for number in range(n)
    ]
    rows[-1] |= {"state": "failed", "value": None, "fold_1": None, "fold_2": None, "reason": f"loss is nan {HOSTILE}"}
    rows[-2] |= {"state": "pruned", "fold_2": None}
    return pd.DataFrame(rows)


def summary() -> dict[str, Any]:
    won = {"number": 4, "baseline": False, "value": 0.78, "folds": [0.7, 0.86], "wins": 0.612}
    own = {"model.name": HOSTILE, "train.learning_rate": 0.001}
    return {
        "recipe": "default",
        "finished": "2025-11-20T09:14:03+00:00",
        "space": SPACE,
        "plan": {"trials": 8, "folds": 2, "pruner": "median"},
        "protocol": {
            "split": "patient",
            "patients": {"train": 20, "validation": 4, "test": 6},
            "images": {"train": 200, "validation": 40, "test": 60},
            "trials": {"by": "patient", "images": 240},
        },
        "trials": {"complete": 6, "pruned": 1, "failed": 1, "stopped": 0},
        "winner": won
        | {"settings": {"model.name": "residual", "train.learning_rate": 0.0034567, "train.batch_size": 16}},
        "baseline": won | {"number": 0, "baseline": True, "value": 0.7, "wins": 0.11, "settings": own},
        "baseline_settings": own,
        "corrected": {"value": 0.744, "resamples": 200},
        "test": {
            "n_patients": 6,
            "networks": 4,
            "note": "only 6 patients: intervals from fewer than 20 are not to be trusted",
            "image": {"auroc": {"value": 0.731, "ci": [0.61, 0.84]}, "n_images": 60},
            "image_alone": {"auroc": {"value": 0.725, "ci": [0.6, 0.83]}, "n_images": 60},
        },
        "environment": {"command": f"clearmargin sweep {'/very/long/folder' * 20}"},
    }


def test_the_tested_figure_stands_beside_the_one_that_was_chosen_by() -> None:
    head, rest = answer(summary())
    assert head == "Trial 4 won, 0.080 above the recipe's own settings in cross-validation."
    assert "an AUROC of 0.731 (0.61–0.84)" in rest
    assert "0.780" in rest
    shown = {each.name: (each.value, each.interval) for each in estimates(summary())}
    assert shown["cross-validated"] == ("0.780", "folds 0.700, 0.860")
    assert shown["corrected for the choice"][0] == "0.744"
    assert shown["on test"] == ("0.731", "0.610–0.840")
    assert shown["on test, alone"] == ("0.725", "0.600–0.830")
    assert "61\N{NO-BREAK SPACE}% of the cases" in winners_curse(summary())
    assert "cross-fitted" in dict(protocol(summary()))["The winner"]


def test_an_interval_over_few_patients_is_said_not_to_be_trusted() -> None:
    content = summary()
    assert "But only 6 patients: intervals from fewer than 20 are not to be trusted." in estimates(content)[2].meaning
    content["test"]["note"] = None
    assert estimates(content)[2].meaning.endswith("This is the figure to report.")


def test_a_recipe_that_was_not_beaten_and_one_that_failed_are_said() -> None:
    own = summary()
    own["winner"] = own["winner"] | {"baseline": True}
    assert answer(own)[0] == "No trial was better than the recipe's own settings (default)."
    without = summary() | {"baseline": None}
    assert "could not be trained" in answer(without)[0]
    assert "recipe's own settings in" not in winners_curse(without)


def test_the_page_is_the_same_bytes_each_time_and_escapes_what_comes_from_data() -> None:
    page = render_sweep_page(summary(), trials())
    assert page == render_sweep_page(summary(), trials())
    assert "<script>" not in page
    assert page.count("&lt;script&gt;") >= 3
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", page)
    assert "0.003457" in page  # of the winner, four digits


def test_an_image_level_sweep_is_stamped() -> None:
    stamped = copy.deepcopy(summary())
    stamped["protocol"]["stamp"] = "image-level split: optimistic"
    assert "image-level split: optimistic" in render_sweep_page(stamped, trials())


def test_figures_take_trials_as_they_come() -> None:
    table = trials()
    for key, spec in SPACE.items():
        assert "<svg" in sweep_plots.parameter(table, key, spec, name="p", winner=4).svg
    few = table.head(2).assign(value=0.7)  # all the same, and the recipe's own value outside the space
    few.loc[0, "train.batch_size"] = 128
    few.loc[1, "train.learning_rate"] = np.nan
    assert "<svg" in sweep_plots.parallel(few, SPACE, winner=1).svg
    assert "<svg" in sweep_plots.progress(few.head(1), winner=0).svg


@pytest.mark.parametrize(("width", "scheme"), [(320, "dark"), (1280, "light")])
def test_the_page_fits_asks_for_nothing_and_can_be_read_by_all(
    width: int, scheme: Any, browser: Browser, tmp_path: Path
) -> None:
    page = write_sweep_page(tmp_path / "sweep.html", summary(), trials())
    # Axe is a script of the test; the page's own policy would not let it in.
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True)
    tab = context.new_page()
    requests: list[str] = []
    complaints: list[str] = []
    tab.on("request", lambda each: requests.append(each.url))
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.goto(page.as_uri())
    overflow = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    found = [f"{each['id']}: {each['nodes'][0]['html'][:160]}" for each in Axe().run(tab).response["violations"]]
    context.close()
    assert overflow == 0
    assert found == []
    assert complaints == []
    assert requests == [page.as_uri()]
