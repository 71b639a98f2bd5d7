"""The documents describe the code as it is; what they show is run in `docs/`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image
from tests.bundle.small_bundle import write_working
from tests.docs.shown import DOCUMENTS

import clearmargin
from clearmargin.config import recipe_names
from clearmargin.data.phantom import draw_patch
from clearmargin.images.preprocess import Preprocessing

ROOT = Path(__file__).resolve().parents[1]


def test_every_recipe_is_described() -> None:
    text = (ROOT / "docs" / "recipes.md").read_text()
    assert all(f"`{name}`" in text for name in recipe_names())


def test_the_tree_lists_every_source_file() -> None:
    text = (ROOT / "docs" / "tree.md").read_text()
    source = ROOT / "src" / "clearmargin"
    for file in sorted(source.rglob("*.py")):
        if file.name == "__init__.py":
            assert file.parent == source or f"{file.parent.name}/" in text, file
        else:
            assert re.search(rf"^\s*{re.escape(file.name)}\s+\S", text, flags=re.MULTILINE), file


def test_no_document_names_a_path_of_a_machine() -> None:
    for document in DOCUMENTS:
        assert not re.search(r"/(work|root|home|tmp)/", document.read_text()), document


def test_the_network_is_used_without_clearmargin_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = Preprocessing(width=24, height=24, mean=0.4, std=0.3)
    write_working(tmp_path / "bundle", name="cbis_ddsm", spec=spec)
    clearmargin.export(tmp_path / "bundle", tmp_path / "model.onnx", to="onnx")
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "bundle.md").read_text(), flags=re.DOTALL)
    assert "clearmargin." not in code
    assert len([line for line in code.splitlines() if line and not line.startswith(("import", "from"))]) <= 10
    monkeypatch.chdir(tmp_path)
    predictor = clearmargin.load_bundle("bundle")
    for seed in range(3):
        Image.fromarray(draw_patch(seed % 2, seed, 24)).save("patch.png")
        exec(code, values := {})
        expected = predictor.predict(["patch.png"]).iloc[0]
        assert capsys.readouterr().out == f"{expected['decision']}\n"
        assert values["probability"][0] == pytest.approx(expected["probability"], abs=1e-6)
