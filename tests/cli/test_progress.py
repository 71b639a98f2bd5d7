"""What a running job says of itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clearmargin.cli.progress import PlainListener

SOURCE = Path(__file__).resolve().parents[2] / "src" / "clearmargin"


def test_every_stage_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    found = [re.findall(r'\.stage\("([^"]+)"\)', file.read_text()) for file in SOURCE.rglob("*.py")]
    stages = {name for names in found for name in names}
    assert {"read", "features", "train"} <= stages
    for name in stages:
        PlainListener().stage(name)
        line = capsys.readouterr().err
        assert line[0].isupper(), line
        assert line.endswith(" …\n")
