"""What `clearmargin audit` prints, and the page of --html."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from tests.cli.conftest import Answer
from tests.report.conftest import Page
from tests.report.small_audit import audit, finding, hostile_audit

import clearmargin.cli.show
from clearmargin.cli.audit import image_labels
from clearmargin.cli.show import audit_summary, terminal_width
from clearmargin.report.findings import PAGE_MARK

Call = Callable[..., Answer]
WIDTHS = (40, 80, 120)

NAMES = [f"P{index}/1/P{index}_idx5_x51_y101_class1.png" for index in range(9)]
FOUND = [
    finding("mixed_sizes", "note", message="images have 3 sizes.", count=3),
    finding(
        "near_duplicate",
        message="4 images look almost alike.",
        paths=NAMES[:4],
        groups=[NAMES[:2], NAMES[2:4]],
        certainty="likely",
    ),
    finding("duplicate", message="2 files are identical.", paths=NAMES[:2], groups=[NAMES[:2]]),
    finding("truncated", "blocking", message="9 files are truncated.", fix="Copy them again.", paths=NAMES),
]


def test_the_gravest_finding_comes_first_and_the_verdict_last() -> None:
    lines = audit_summary(audit(FOUND)).splitlines()
    heads = [line.split()[1] for line in lines if line.startswith(("BLOCKING", "WARNING", "NOTE"))]
    assert heads == ["truncated", "near_duplicate", "duplicate", "mixed_sizes"]
    assert lines[-1] == "1 finding blocks training. Mend it first."
    assert audit_summary(audit()).endswith("Nothing blocks: training may go on. Nothing was found.")


def test_a_finding_is_told_with_extent_certainty_first_paths_and_fix() -> None:
    text = audit_summary(audit(FOUND))
    assert "BLOCKING  truncated (9 files, a fact)\n          9 files are truncated.\n" in text
    for name in NAMES[:3]:
        assert f"\n            {name}\n" in text
    assert "\n            … and 6 more\n          Fix: Copy them again.\n" in text
    assert "NOTE      mixed_sizes (a fact)" in text


def test_copies_stand_under_what_they_are_like() -> None:
    text = audit_summary(audit(FOUND))
    assert "WARNING   near_duplicate (4 files in 2 groups, likely)" in text
    assert f"            {NAMES[2]}\n            ≈ {NAMES[3]}\n" in text
    assert f"            {NAMES[0]}\n            = {NAMES[1]}\n" in text


def test_images_patients_classes_and_each_step_are_counted() -> None:
    lines = audit_summary(audit(FOUND), width=120).splitlines()
    assert lines[:3] == [
        "/data/set (source: folder)",
        "40 images of 12 patients can be used, 30 benign and 10 malignant.",
        "45 files found → 40 labelled images → 40 images used, not in quarantine",
    ]


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_the_terminal_whatever_the_files_are_called(width: int) -> None:
    for values in (audit(FOUND), hostile_audit()):
        lines = audit_summary(values, width=width).split("\n")
        assert max(map(cell_len, lines)) <= width
        assert all(line.isprintable() for line in lines)


@given(text=st.text(max_size=400), width=st.sampled_from(WIDTHS))
def test_wrapping_loses_and_adds_no_character(text: str, width: int) -> None:
    clean = clearmargin.cli.show.clean(text)
    lines = clearmargin.cli.show._wrap(clean, width, "  ", after="    ")
    assert max(map(cell_len, lines)) <= width
    assert "".join("".join(lines).split()) == "".join(clean.split())


def test_hostile_texts_end_after_a_few_lines() -> None:
    assert len(audit_summary(hostile_audit()).splitlines()) < 150


@pytest.mark.parametrize(
    ("columns", "is_terminal", "width"),
    [(100, True, 100), (300, True, 120), (20, True, 40), (300, False, 80), (20, False, 80)],
)
def test_the_width_is_that_of_the_terminal_and_eighty_where_there_is_none(
    columns: int, is_terminal: bool, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((columns, 24)))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal, raising=False)
    assert terminal_width() == width


def test_html_writes_a_page_and_names_it(call: Call, make_folder: Callable[..., Path], tmp_path: Path) -> None:
    data, target = make_folder(), tmp_path / "new" / "audit.html"
    benign, malignant = next(data.glob("P00/0/*.png")), next(data.glob("P01/1/*.png"))
    shutil.copy(benign, malignant)
    next(data.glob("P02/1/*.png")).write_bytes(b"")
    answer = call("audit", data, "--html", target, "--tolerance", "0.5")
    assert answer.code == 3  # the same image under both labels
    assert answer.out.splitlines()[-1] == f"page     {target}"
    page = Page(target.read_text(encoding="utf-8"))
    assert re.match(r"\d+ findings? blocks? training\.", page.texts(".answer")[0])
    alternatives = {attributes["alt"] for _, attributes, _ in page.find("img")}
    assert f"benign, patient P00: {benign.name}" in alternatives
    assert f"malignant, patient P01: {malignant.name}" in alternatives
    assert "the file is empty (0 bytes)" in page.texts("td")


def test_html_beside_json_leaves_standard_output_to_json(
    call: Call, make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    answer = call("audit", make_folder(), "--json", "--html", tmp_path / "a.html")
    assert json.loads(answer.out)["counts"]["images"] == 64
    assert f"page     {tmp_path / 'a.html'}" in answer.err
    assert PAGE_MARK in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_html_replaces_an_older_page_and_nothing_else(
    call: Call, make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    data, target = make_folder(), tmp_path / "a.html"
    assert call("audit", data, "--html", target).code == 0
    target.write_text(target.read_text(encoding="utf-8") + "<!-- older -->", encoding="utf-8")
    assert call("audit", data, "--html", target).code == 0
    assert "<!-- older -->" not in target.read_text(encoding="utf-8")
    target.write_text("<html>my thesis</html>")
    answer = call("audit", data, "--html", target)
    assert (answer.code, target.read_text()) == (2, "<html>my thesis</html>")
    assert f"{target}: is there already" in answer.error
    assert "--html" in answer.error


def test_html_that_cannot_be_written_is_refused_before_the_audit(
    call: Call, make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_folder()
    folder = call("audit", data, "--html", tmp_path)
    assert folder.code == 2
    assert "audit.html" in folder.error
    assert "Auditing" not in folder.err
    pipe = call("audit", data, "--html", "/dev/null")
    assert pipe.code == 2
    assert "Auditing" not in pipe.err


def test_html_below_a_file_is_one_clear_line(call: Call, make_folder: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = call("audit", make_folder(), "--html", tmp_path / "file" / "new" / "a.html")
    assert answer.code == 2
    assert f"{tmp_path / 'file'}: is not a folder" in answer.error
    assert "Auditing" not in answer.err


def test_labels_tell_class_patient_and_part(tmp_path: Path, make_folder: Callable[..., Path]) -> None:
    import clearmargin

    data = make_folder(patients=2, per_class=1)
    images = sorted(data.rglob("*.png"))
    rows = [f"{image},{image.parent.name},P-{number},train" for number, image in enumerate(images)]
    rows += [f"{images[0]},1,,test"]  # the same file again, under the other label
    table = tmp_path / "table.csv"
    table.write_text("path,label,patient_id,official_split\n" + "\n".join(rows) + "\n")
    labels = image_labels(clearmargin.audit(table))
    assert labels[str(images[0])] == "benign, patient P-0, train; malignant, test"


@pytest.mark.real
def test_real_ultrasound_images_have_a_small_page_with_pictures(call: Call, real_data: Path, tmp_path: Path) -> None:
    target = tmp_path / "busi.html"
    call("audit", real_data / "busi", "--html", target)
    page = Page(target.read_text(encoding="utf-8"))
    assert len(page.find("img")) >= 12
    assert not page.find(".placeholder")
    assert target.stat().st_size < 3_000_000
