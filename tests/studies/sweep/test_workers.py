"""What comes of processes that cannot go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from clearmargin.errors import DataError
from clearmargin.settings import RunConfig
from clearmargin.studies.sweep.records import Plan
from clearmargin.studies.sweep.setup import Setup, read_setup
from clearmargin.studies.sweep.space import Choices, Range, Space
from clearmargin.studies.sweep.study import Study
from clearmargin.studies.sweep.workers import work_together
from clearmargin.types import Listener

SPACE = Space((Choices("model.arguments", (["a=1"], ["b=2"])), Range("train.epochs", "int", 1, 7, step=3)))
SETUP = Setup("default", {"train.batch_size": 8}, RunConfig(seed=4), SPACE, Plan(4, 2, "none"))


def test_a_setup_comes_through_a_pipe_as_it_was() -> None:
    text = SETUP.to_json()
    assert "\n" not in text
    assert read_setup(text) == SETUP


def test_an_error_of_a_process_is_raised_by_the_one_that_started_it(tmp_path: Path) -> None:
    study = Study(tmp_path, SPACE, SETUP.plan, 0)
    study.note({"packed": "{}"})
    study.begin(SETUP.baseline())
    with pytest.raises(DataError, match=r"folds\.csv: cannot be read"):  # nobody has written it
        work_together(study, SETUP, 1, Listener())
    assert [trial.state for trial in study.trials()] == ["waiting"]
