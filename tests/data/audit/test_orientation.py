"""The edge that breasts come in from is counted, and the one that lies unlike its side is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.data.layouts import draw_mammogram, save, write_mias

import clearmargin
from clearmargin.types import Finding


def findings(root: Path) -> dict[str, Finding]:
    return {entry.kind: entry for entry in clearmargin.audit(root, normal="benign").findings}


def test_both_edges_are_counted(tmp_path: Path) -> None:
    root = write_mias(tmp_path / "mias")
    entry = findings(root)["orientation"]
    images = len(clearmargin.audit(root, normal="benign").manifest)
    odd = sum(int(Path(path).stem[3:]) % 2 for path in clearmargin.audit(root, normal="benign").manifest.frame["path"])
    assert f"left edge in {images - odd} and from the right edge in {odd} mammograms" in entry.message
    assert "mirrored" not in findings(root)


def test_a_mirrored_mammogram_is_named(tmp_path: Path) -> None:
    root = write_mias(tmp_path / "mias")
    frame = clearmargin.audit(root, normal="benign").manifest.frame
    right = frame.loc[frame["side"] == "right", "path"].tolist()
    assert len(right) >= 4
    save(Path(right[0]), draw_mammogram(right=False))
    entry = findings(root)["mirrored"]
    assert (entry.paths, entry.severity, entry.certainty) == ((right[0],), "note", "possible")


def test_other_images_are_not_asked(make_folder: object) -> None:
    assert callable(make_folder)
    assert "orientation" not in {entry.kind for entry in clearmargin.audit(make_folder()).findings}


@pytest.mark.real
def test_real_mammograms_lie_as_their_sides_say(real_data: Path) -> None:
    entries = findings(real_data / "mias")
    assert "left edge in 7 and from the right edge in 7 mammograms" in entries["orientation"].message
    assert "mirrored" not in entries
