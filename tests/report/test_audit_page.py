import copy
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.report.conftest import Page
from tests.report.small_audit import HOSTILE, ROOT, audit, finding, hostile_audit, noise, patch, worst_audit

from clearmargin.errors import ImageError
from clearmargin.report.audit_page import MOST_PATHS, render_audit_page, write_audit_page
from clearmargin.report.findings import PAGE_MARK
from clearmargin.types import INTENDED_USE


def gone(path: str) -> NDArray[np.uint8]:
    raise ImageError("missing", path, "no such file")


def page_of(values: dict[str, Any], load_image: Any = patch, labels: Mapping[str, str] | None = None) -> Page:
    return Page(render_audit_page(values, load_image=load_image, labels=labels))


def names(count: int) -> list[str]:
    return [f"P{index:04}/a{index:04}.png" for index in range(count)]


def test_the_page_is_one_file_that_asks_for_nothing() -> None:
    page = page_of(audit([finding("copies", paths=names(3))]))
    assert not any(page.find(tag) for tag in ("script", "link", "iframe", "object", "embed", "form", "base"))
    for _, attributes, _ in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith("#")
    assert "url(" not in page.source
    (policy,) = [a["content"] for _, a, _ in page.find("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy


def test_a_blocking_finding_is_the_first_thing_said() -> None:
    page = page_of(audit([finding("odd", "note"), finding("bad", "blocking"), finding("worse", "blocking")]))
    assert page.texts(".answer")[0].startswith("2 findings block training. Mend them first.")
    assert page.texts("h3")[1:] == ["blocking Bad", "blocking Worse", "note Odd"]


@pytest.mark.parametrize(
    ("severities", "said"),
    [
        ([], "Nothing was found."),
        (["note"], "1 note to read first."),
        (["warning", "note", "warning"], "2 warnings and 1 note to read first."),
    ],
)
def test_where_nothing_blocks_training_may_go_on(severities: list[str], said: str) -> None:
    page = page_of(audit([finding("odd", severity) for severity in severities]))
    assert page.texts(".answer")[0].startswith(f"Nothing blocks: training may go on. {said}")


def test_images_patients_and_classes_are_counted() -> None:
    assert "40 images of 12 patients can be used, 30 benign and 10 malignant." in page_of(audit()).texts(".answer")[0]
    assert "40 images of unknown patients" in page_of(audit(patients=None)).texts(".answer")[0]
    assert "No image can be used." in page_of(audit(benign=0, malignant=0)).texts(".answer")[0]


def test_each_step_from_files_to_images_tells_what_was_lost() -> None:
    page = page_of(audit(quarantine=[("a.png", "empty", "0 bytes")]))
    flow = [text for tag, attributes, text in page.find("ol") if attributes.get("class") == "flow"]
    assert " ".join(flow[0].split()) == "46 files found 41 −5 labelled images 40 −1 images used, not in quarantine"


@pytest.mark.parametrize(
    ("certainty", "word", "meaning"),
    [("certain", "a fact", "A fact"), ("likely", "likely", "Likely: an"), ("possible", "possible", "Possible: a")],
)
def test_how_sure_a_finding_is_stands_in_words_beside_it(certainty: str, word: str, meaning: str) -> None:
    page = page_of(audit([finding("odd", certainty=certainty)]))
    assert page.tables()[0][1] == ["warning", "Odd", word, "—"]
    assert any(text.startswith(meaning) for text in page.texts("dd"))


def test_an_audit_that_knows_neither_certainty_nor_groups_is_shown_as_facts() -> None:
    old = finding("odd", paths=["a.png"])
    del old["certainty"], old["groups"]
    assert page_of(audit([old])).tables()[0][1] == ["warning", "Odd", "a fact", "1 file"]


def test_every_finding_is_linked_from_the_verdict() -> None:
    page = page_of(audit([finding("odd"), finding("confounded_by_size"), finding("bad", "blocking")]))
    linked = {a["href"][1:] for _, a, _ in page.find("a")}
    assert linked <= {a["id"] for _, a, _ in page.elements if "id" in a}
    assert {a["id"] for _, a, _ in page.find("article")} <= linked


def test_twelve_pictures_at_most_are_spread_over_the_list_and_the_rest_is_counted() -> None:
    loaded: list[str] = []

    def load(path: str) -> NDArray[np.uint8]:
        loaded.append(path)
        return patch(path)

    page = page_of(audit([finding("odd", paths=names(1234))]), load)
    assert len(page.find("img")) == len(loaded) == 12
    assert loaded[0].endswith("a0000.png")
    assert loaded[-1].endswith("a1233.png")
    assert "12 of 1,234 files, spread over the list." in page.texts("p")
    assert len(page.find(".paths")) == 1
    assert "And 234 more; all of them with clearmargin audit /data/set --json" in page.texts(".note")
    assert sum(text.startswith("P") for text in page.texts("span")) >= MOST_PATHS


def test_copies_stand_side_by_side_and_large_groups_are_cut_short() -> None:
    groups = [["a.png", "b.png"], [f"c{index}.png" for index in range(9)], ["d.png", "e.png"]]
    paths = [name for group in groups for name in group]
    page = page_of(audit([finding("near", paths=paths, groups=groups, certainty="likely")]))
    assert page.texts(".row") == ["a.png b.png", "c0.png c1.png c2.png c3.png", "d.png e.png"]
    assert "and 5 more of this group" in page.texts("p")
    assert "13 files in 3 groups" in page.texts("td")


def test_of_many_groups_six_are_shown() -> None:
    groups = [[f"{index}a.png", f"{index}b.png"] for index in range(20)]
    page = page_of(audit([finding("near", paths=[name for group in groups for name in group], groups=groups)]))
    assert len(page.find(".row")) == 6
    assert "6 of 20 groups." in page.texts("p")
    assert page.texts("li")[-20] == "0a.png 0b.png"


def test_files_of_a_finding_that_are_in_no_group_are_listed_too() -> None:
    page = page_of(audit([finding("near", paths=["a.png", "b.png", "c.png"], groups=[["b.png", "c.png"]])]))
    (listed,) = page.texts(".paths")
    assert listed == "b.png c.png a.png"


def test_what_is_known_of_an_image_stands_under_it_and_in_its_alternative_text() -> None:
    page = page_of(audit([finding("odd", paths=["a.png"])]), labels={f"{ROOT}/a.png": "malignant, patient P-1"})
    (image,) = page.find("img")
    assert image[1]["alt"] == "malignant, patient P-1: a.png"
    assert page.texts("figcaption") == ["malignant, patient P-1 a.png"]


def test_every_picture_has_a_text_and_a_size() -> None:
    page = page_of(audit([finding("odd", paths=names(5)), finding("near", groups=[["a.png", "b.png"]])]))
    assert all(a["alt"] and int(a["width"]) and int(a["height"]) for _, a, _ in page.find("img"))


def test_an_image_that_cannot_be_read_is_a_placeholder_with_its_reason() -> None:
    def load(path: str) -> NDArray[np.uint8]:
        return gone(path) if path.endswith("a0001.png") else patch(path)

    page = page_of(audit([finding("odd", paths=names(3))]), load)
    assert page.texts(".placeholder") == ["no picture no such file"]
    assert len(page.find("img")) == 2


def test_where_no_image_can_be_read_three_reasons_are_enough() -> None:
    page = page_of(audit([finding("missing", paths=names(30))]), gone)
    assert len(page.find(".placeholder")) == 3
    assert not page.find("img")


def test_another_error_of_the_loader_is_not_swallowed() -> None:
    def broken(path: str) -> NDArray[np.uint8]:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        page_of(audit([finding("odd", paths=["a.png"])]), broken)


def test_a_file_in_quarantine_is_not_opened_again_and_stands_in_a_table_with_its_reason() -> None:
    page = page_of(
        audit([finding("truncated", paths=["b/bad.png"])], quarantine=[("b/bad.png", "too_large", "9 GB")]),
        lambda path: pytest.fail(f"{path} was opened"),
    )
    assert page.tables()[-1] == [["File", "Kind", "Reason"], ["b/bad.png", "too large", "9 GB"]]


def test_without_quarantine_there_is_no_section_for_it() -> None:
    assert not page_of(audit()).find("#quarantine")


def test_what_a_guess_scores_has_a_section_of_its_own() -> None:
    trivial = [
        finding("confounded_by_file_size", "blocking", message="the file size alone reaches AUROC 0.91."),
        finding("split_differs_by_width", message="the width tells train from test, AUROC 0.8."),
    ]
    page = page_of(audit([*trivial, finding("odd")]))
    (section,) = [" ".join(text.split()) for _, _, text in page.find("#guess")]
    assert "Calling every image benign is right for 75 % of them; its AUROC is 0.5." in section
    assert "The file size alone reaches AUROC 0.91." in section
    assert "The width tells train from test, AUROC 0.8." in section
    assert "Odd" not in section
    assert page.texts(".answer")[0].startswith("1 finding blocks")


def test_the_class_balance_of_the_audit_takes_the_place_of_ours() -> None:
    page = page_of(audit([finding("class_balance", "note", message="all benign would score 0.750.")]))
    assert "Calling every image" not in page.source
    assert "All benign would score 0.750." in page.texts("p")


def test_paths_are_seen_from_the_root_and_others_stay_absolute() -> None:
    values = audit([finding("odd", message=f"the first is '{ROOT}/a.png', beside '{ROOT}-old/b.png'.")])
    values["findings"][0]["paths"] = [f"{ROOT}/a.png", f"{ROOT}-old/b.png"]
    page = page_of(values)
    assert page.texts(".paths") == ["a.png /data/set-old/b.png"]
    assert "The first is 'a.png', beside '/data/set-old/b.png'." in page.texts("p")


def test_hostile_texts_are_shown_as_text_on_one_line_and_shortened() -> None:
    page = page_of(hostile_audit(), gone, {f"{ROOT}/{name}": "<b>" + "L" * 5000 for name in HOSTILE})
    assert not page.find("script")
    assert all(a["src"].startswith("data:") for _, a, _ in page.find("img"))
    assert not any(name.startswith("on") for _, attributes, _ in page.elements for name in attributes)
    body = page.source.partition("</style>")[2]
    assert "\x1b" not in body
    assert "\u202e" not in body
    assert r"two\nlines\x1b[31m.png" in body
    assert r"lost\udce4.png" in body
    assert "乳房超音波.png" in body
    assert not re.search("x{150}|z{150}|r{300}|k{150}|L{100}", body)
    page.source.encode("utf-8")


def test_fifty_findings_with_the_worst_names_and_pictures_stay_under_three_megabytes(tmp_path: Path) -> None:
    target = write_audit_page(worst_audit(), tmp_path / "a.html", load_image=noise)
    assert 1_500_000 < target.stat().st_size < 3_000_000
    assert len(re.findall("<article", target.read_text(encoding="utf-8"))) == 50
    shown = [text.count("<img") for text in target.read_text(encoding="utf-8").split("<article")[1:]]
    assert min(shown) >= 1


def test_a_few_findings_have_all_their_pictures_however_badly_they_compress() -> None:
    page = page_of(audit([finding(f"odd_{index}", paths=names(12)) for index in range(8)]), noise)
    assert len(page.find("img")) == 8 * 12


def test_the_same_audit_gives_the_same_bytes_and_is_not_changed() -> None:
    values = audit([finding("odd", paths=names(20)), finding("bad", "blocking")], quarantine=[("q.png", "empty", "0")])
    before = copy.deepcopy(values)
    assert page_of(values).source == page_of(values).source
    assert values == before


def test_a_page_that_fails_leaves_the_old_one_and_nothing_half_written(tmp_path: Path) -> None:
    target = tmp_path / "a.html"
    target.write_text("old")

    def broken(path: str) -> NDArray[np.uint8]:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_audit_page(audit([finding("odd", paths=["a.png"])]), target, load_image=broken)
    assert [file.name for file in tmp_path.iterdir()] == ["a.html"]
    assert target.read_text() == "old"


def test_a_page_can_be_told_from_other_files_by_its_beginning() -> None:
    assert PAGE_MARK in page_of(audit()).source[:500]


def test_the_intended_use_is_stated() -> None:
    assert INTENDED_USE in page_of(audit()).texts("p")


def test_headings_begin_with_one_h1_and_skip_no_level() -> None:
    page = page_of(audit([finding("odd", paths=["a.png"])], quarantine=[("q.png", "empty", "0")]))
    levels = [int(tag[1]) for tag, _, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("scheme", [0, 1])
@pytest.mark.parametrize(
    ("text", "ground"),
    [
        ("ink", "paper"),
        ("muted", "paper"),
        ("muted", "wash"),
        ("accent", "paper"),
        ("paper", "accent"),
        ("warn", "warn-wash"),
    ],
)
def test_text_stands_out_from_its_ground_by_more_than_four_and_a_half_to_one(
    text: str, ground: str, scheme: int
) -> None:
    style = page_of(audit()).source.partition("<style>")[2]
    blocks = re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL)  # light, dark
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", blocks[scheme]))
    light, dark = sorted((_luminance(colours[text]), _luminance(colours[ground])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5
