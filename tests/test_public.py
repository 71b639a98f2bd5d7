"""The public names are listed once, cheap to import, and do what the commands do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import clearmargin


def test_every_public_name_resolves() -> None:
    for name in clearmargin.__all__:
        assert getattr(clearmargin, name) is not None
    assert set(clearmargin.__all__) <= set(dir(clearmargin))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = clearmargin.trian  # type: ignore[attr-defined]


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, clearmargin; assert not {'torch', 'numpy', 'pandas', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_main_job_from_python(make_folder: Callable[..., Path]) -> None:
    data = make_folder(patients=8, px=32)
    audit = clearmargin.audit(data)
    assert not audit.blocking
    table = clearmargin.split(data)
    assert set(table["split"]) == {"train", "validation", "test"}
    heard: list[str] = []

    class Hearing(clearmargin.Listener):
        def stage(self, name: str) -> None:
            heard.append(name)

    settings = {"evaluate.resamples": 100, "train.batch_size": 16}
    run = clearmargin.train(data, data.parent / "run", epochs=1, settings=settings, listener=Hearing())
    stages = ["audit", "compare", "confounding", "pack", "train", "export", "evaluate", "gate", "report"]
    assert list(dict.fromkeys(heard)) == stages  # several networks are trained and exported in turn
    assert run.metrics["schema"] == 1
    predictor = clearmargin.load_bundle(run.folder)
    by_table = predictor.predict(table)
    by_path = predictor.predict(table["path"].tolist())
    refused = by_table["decision"] == "refused"
    assert refused.mean() < 0.05, by_table["reason"][refused].tolist()
    np.testing.assert_array_equal(by_table["probability"], by_path["probability"])
    assert by_table["patient_id"].tolist() == table["patient_id"].tolist()


def test_error_from_python_is_one_of_ours(tmp_path: Path) -> None:
    with pytest.raises(clearmargin.ClearmarginError, match="no such file or folder"):
        clearmargin.audit(tmp_path / "nowhere")
