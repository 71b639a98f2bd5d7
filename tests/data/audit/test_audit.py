"""The audit: each thing that can be wrong is planted, and found with its severity, its count, its place and its fix."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from clearmargin.data.audit import Audit, audit_images, audit_manifest
from clearmargin.data.audit.scan import scan_images
from clearmargin.data.sources import read_source
from clearmargin.errors import AuditBlocked
from clearmargin.settings import DataSettings
from clearmargin.types import Finding, Listener

Build = Callable[..., Path]


@pytest.fixture
def root(make_folder: Build) -> Path:
    """24 patients with two benign and two malignant patches of 16 px: nothing is wrong with it."""
    return make_folder(patients=24, per_class=2)


def audit(data: Path, **options: object) -> Audit:
    return audit_images(DataSettings.model_validate({"root": str(data), **options}))


def planted(found: Audit) -> list[Finding]:
    """The findings without the statements that tests of their own are about: balance and trivial classifiers."""
    told = ("class_balance", "confounded_by_", "confounding_unchecked", "split_difference_unchecked")
    return [entry for entry in found.findings if not entry.kind.startswith(told)]


def only(found: Audit) -> Finding:
    assert len(planted(found)) == 1, kinds(found)
    return planted(found)[0]


def kinds(found: Audit) -> list[str]:
    return [entry.kind for entry in planted(found)]


def patch(root: Path, patient: int = 0, label: int = 0, number: int = 0) -> Path:
    name = f"P{patient:02}_idx5_x{1 + 16 * number}_y{1 + 16 * label}_class{label}.png"
    return root / f"P{patient:02}" / str(label) / name


def as_csv(root: Path, table: pd.DataFrame | None = None, **columns: object) -> Path:
    """The images of a folder as a CSV, with other columns."""
    frame = read_source(root).frame if table is None else table
    file = root.parent / "m.csv"
    frame[["path", "label", "patient_id"]].assign(**columns).to_csv(file, index=False)
    return file


class TestNothingWrong:
    def test_no_finding_and_all_images_used(self, root: Path) -> None:
        found = audit(root)
        assert (planted(found), found.quarantine, found.blocking) == ([], (), ())
        assert {entry.severity for entry in found.findings} == {"note"}
        found.check()
        assert found.fix_list() == []
        assert found.flow == (
            ("files found", 96),
            ("labelled images", 96),
            ("images used, not in quarantine", 96),
        )

    def test_sizes_and_content_are_filled_in(self, root: Path) -> None:
        frame = audit(root).manifest.frame
        assert set(frame["width"]) == set(frame["height"]) == {16}
        assert frame["sha256"].str.fullmatch("[0-9a-f]{64}").all()
        assert frame["sha256"].is_unique

    def test_originals_are_not_touched(self, root: Path) -> None:
        patch(root).write_bytes(b"")
        before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in root.rglob("*.png")}
        audit(root)
        assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in root.rglob("*.png")} == before


class TestUnusableFiles:
    @pytest.mark.parametrize(
        ("kind", "words"),
        [
            ("truncated", "1 file is truncated, the first is '{path}': the file ends before the end of its PNG image."),
            ("empty", "1 file is empty, the first is '{path}': the file is empty (0 bytes)."),
            ("not_an_image", "1 file is no image at all, the first is '{path}': the content is not a PNG, JPEG,"),
            ("unreadable", "1 file is unreadable, the first is '{path}': the bytes of its part 'IDAT' changed"),
            ("unsupported", "1 file is of an unsupported kind, the first is '{path}': has several pages"),
        ],
    )
    def test_each_kind_is_found(self, root: Path, kind: str, words: str) -> None:
        file = patch(root, 3, 1)
        data = file.read_bytes()
        middle = data.index(b"IDAT") + 20
        if kind == "unsupported":
            page = Image.new("L", (16, 16))
            page.save(file, "TIFF", save_all=True, append_images=[page])
        else:
            file.write_bytes(
                {
                    "truncated": data[: len(data) // 2],
                    "empty": b"",
                    "not_an_image": b"<html>not found</html>",
                    "unreadable": data[:middle] + b"damage" + data[middle + 6 :],
                }[kind]
            )
        found = audit(root, tolerance=0.02)
        entry = only(found)
        assert (entry.kind, entry.severity, entry.count, entry.paths) == (kind, "warning", 1, (str(file),))
        assert words.format(path=file) in entry.message
        assert entry.fix == "Restore or remove them."
        assert [(left.path, left.kind) for left in found.quarantine] == [(str(file), kind)]
        assert len(found.manifest) == 95
        assert str(file) not in set(found.manifest.frame["path"])
        assert found.flow[-2:] == (("labelled images", 96), ("images used, not in quarantine", 95))

    @pytest.mark.parametrize(
        ("broken", "tolerance", "blocks"),
        [(1, 0.01, True), (1, 1 / 96, False), (2, 1 / 96, True), (2, 2 / 96, False), (1, 0.0, True), (48, 0.5, False)],
    )
    def test_exactly_the_tolerance_is_tolerated(self, root: Path, broken: int, tolerance: float, blocks: bool) -> None:
        files = sorted(root.rglob("*.png"))[:broken]
        for file in files:
            file.write_bytes(b"")
        found = audit(root, tolerance=tolerance)
        entry = next(entry for entry in found.findings if entry.kind == "empty")
        assert (entry.severity, entry.count) == ("blocking" if blocks else "warning", broken)
        assert ("more than the tolerance of" in entry.message) == blocks
        assert ("--tolerance F" in entry.fix) == blocks

    @pytest.mark.parametrize(("n", "broken"), [(100, 29), (100, 7), (1000, 55), (3, 1)])
    def test_the_tolerance_is_compared_without_rounding_errors(self, tmp_path: Path, n: int, broken: int) -> None:
        table = pd.DataFrame({"path": [f"{i}.png" for i in range(n)], "label": 0, "patient_id": "P"})
        (tmp_path / "data").mkdir()
        pixels = np.zeros((4, 4), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "image.png")
        for number, name in enumerate(table["path"]):
            file = tmp_path / name
            if number < broken:
                file.write_bytes(b"")
            else:
                file.symlink_to(tmp_path / "image.png")
        table.to_csv(tmp_path / "m.csv", index=False)
        severity = {entry.kind: entry.severity for entry in audit(tmp_path / "m.csv", tolerance=broken / n).findings}
        assert severity["empty"] == "warning"

    def test_the_tolerance_is_over_all_kinds_together(self, root: Path) -> None:
        patch(root, 0).write_bytes(b"")
        patch(root, 1).write_bytes(b"text")
        severities = {entry.kind: entry.severity for entry in planted(audit(root, tolerance=1.5 / 96))}
        assert severities == {"empty": "blocking", "not_an_image": "blocking"}

    def test_a_file_of_the_table_that_does_not_exist_blocks_whatever_the_tolerance(self, root: Path) -> None:
        file = as_csv(root)
        patch(root, 5).unlink()
        entry = only(audit(file, tolerance=1.0))
        assert (entry.kind, entry.severity, entry.count) == ("missing", "blocking", 1)
        assert entry.paths == (str(patch(root, 5)),)
        assert "files that do not exist: 1 of 96, the first is" in entry.message
        assert "Correct the column 'path'" in entry.fix

    def test_a_link_that_leads_nowhere_blocks_with_a_fix_of_its_own(self, root: Path) -> None:
        target = patch(root, 5)
        target.unlink()
        target.symlink_to(root / "gone.png")
        entry = only(audit(root))
        assert (entry.kind, entry.severity, entry.paths) == ("missing", "blocking", (str(target),))
        assert "remove links that lead nowhere" in entry.fix

    def test_nothing_usable_at_all(self, root: Path) -> None:
        for file in root.rglob("*.png"):
            file.write_bytes(b"")
        found = audit(root, tolerance=1.0)
        assert kinds(found) == ["missing_class", "missing_class", "empty"]
        assert len(found.manifest) == 0
        json.dumps(found.to_dict(), allow_nan=False)

    def test_the_scan_answers_in_the_order_of_the_paths(self, root: Path) -> None:
        paths = sorted(map(str, root.rglob("*.png"))) * 4
        paths[7] = str(root / "nowhere.png")
        heard: list[tuple[int, int]] = []

        class Hears(Listener):
            def advance(self, done: int, total: int) -> None:
                heard.append((done, total))

        scan = scan_images(paths, listener=Hears())
        assert np.flatnonzero(~scan.usable).tolist() == [7]
        assert [file.sha256 for file in scan.files[96:192]] == [file.sha256 for file in scan.files[192:288]]
        assert heard[-1] == (len(paths), len(paths))
        assert heard == sorted(heard)


class TestNames:
    def test_a_false_extension_is_a_warning(self, root: Path) -> None:
        file = patch(root, 2)
        Image.open(file).convert("RGB").save(file, "JPEG")
        entry = only(audit(root))
        assert (entry.kind, entry.severity, entry.count, entry.paths) == ("wrong_extension", "warning", 1, (str(file),))
        assert f"'{file}' is JPEG" in entry.message
        assert "lossy copy" in entry.fix

    @pytest.mark.parametrize("name", ["a.PNG", "a.JPeG", "a.tif", "a.pgm"])
    def test_any_spelling_of_the_right_extension_is_right(self, root: Path, name: str) -> None:
        formats = {".png": "PNG", ".jpeg": "JPEG", ".tif": "TIFF", ".pgm": "PPM"}
        file = root / "P00" / "0" / f"P00_idx5_x999_y1_class0{Path(name).suffix}"
        pixels = np.random.default_rng(9).integers(0, 256, (16, 16)).astype(np.uint8)
        Image.fromarray(pixels).save(file, formats[Path(name).suffix.lower()])
        assert kinds(audit(root)) == []

    def test_a_name_that_contradicts_its_folder_blocks(self, root: Path) -> None:
        file = patch(root, 4, 1)
        moved = file.parent.with_name("0") / file.name
        file.rename(moved)
        found = audit(root)
        entry = only(found)
        assert (entry.kind, entry.severity, entry.count, entry.paths) == (
            "label_conflict",
            "blocking",
            1,
            (str(moved),),
        )
        assert f"'P04/0/{moved.name}' lies under benign and is named malignant" in entry.message
        assert "--fix-list FILE" in entry.fix

    def test_a_label_in_a_table_overrules_a_name(self, root: Path) -> None:
        frame = read_source(root).frame
        frame.loc[0, "label"] = 1
        assert kinds(audit(as_csv(root, frame))) == []

    def test_a_row_that_stands_twice_blocks_and_is_no_duplicate(self, root: Path) -> None:
        frame = read_source(root).frame
        entry = only(audit(as_csv(root, pd.concat([frame, frame.iloc[[0, 0, 5]]]))))
        assert (entry.kind, entry.severity, entry.count) == ("repeated_row", "blocking", 3)
        assert f"the first is '{frame['path'][0]}'" in entry.message
        assert entry.fix == "Keep one row for each file."

    def test_a_row_that_stands_twice_with_both_labels_is_a_contradiction_too(self, root: Path) -> None:
        frame = read_source(root).frame
        again = frame.iloc[[0]].assign(label=1 - frame["label"][0])
        found = audit(as_csv(root, pd.concat([frame, again])))
        assert kinds(found) == ["repeated_row", "duplicate_across_labels"]


class TestCopies:
    def test_of_the_same_class_and_patient(self, root: Path) -> None:
        shutil.copy(patch(root, 0, 0, 0), patch(root, 0, 0, 1))
        found = audit(root)
        entry = only(found)
        assert (entry.kind, entry.severity, entry.count) == ("duplicate", "warning", 2)
        assert set(entry.paths) == {str(patch(root, 0, 0, 0)), str(patch(root, 0, 0, 1))}
        assert " = ".join(f"'{path}'" for path in entry.paths) in entry.message
        assert "--fix-list FILE" in entry.fix
        assert len(found.manifest) == 96

    def test_across_classes_block(self, root: Path) -> None:
        shutil.copy(patch(root, 0, 0), patch(root, 0, 1))
        entry = only(audit(root))
        assert (entry.kind, entry.severity, entry.count) == ("duplicate_across_labels", "blocking", 2)
        assert "identical to one of the other class" in entry.message

    def test_across_patients_are_a_warning_of_their_own(self, root: Path) -> None:
        shutil.copy(patch(root, 0), patch(root, 1))
        entry = only(audit(root))
        assert (entry.kind, entry.severity, entry.count) == ("duplicate_across_patients", "warning", 2)
        assert "a split keeps those patients together" in entry.message

    def test_across_the_official_split_block_unless_it_is_not_used(self, root: Path) -> None:
        frame = read_source(root).frame
        splits = frame["patient_id"].map(lambda patient: "test" if patient > "P20" else "train")
        shutil.copy(patch(root, 0), patch(root, 23))
        file = as_csv(root, frame, official_split=splits)
        entry = only(audit(file))
        assert (entry.kind, entry.severity, entry.count) == ("duplicate_across_splits", "blocking", 2)
        fresh = audit_manifest(read_source(file), ignore_official=True)
        assert kinds(fresh) == ["duplicate_across_patients"]
        assert not fresh.manifest.has_official_split

    def test_the_worst_kind_of_three_copies_is_told(self, root: Path) -> None:
        for other in (patch(root, 0, 0, 1), patch(root, 1, 0), patch(root, 2, 1)):
            shutil.copy(patch(root, 0), other)
        entry = only(audit(root))
        assert (entry.kind, entry.count) == ("duplicate_across_labels", 4)


class TestSizes:
    def test_a_few_other_sizes_are_outliers(self, root: Path) -> None:
        Image.open(patch(root, 0)).crop((0, 0, 16, 7)).save(patch(root, 0))
        Image.open(patch(root, 1)).crop((0, 0, 9, 16)).save(patch(root, 1))
        entry = only(audit(root))
        assert (entry.kind, entry.severity, entry.count) == ("size_outlier", "warning", 2)
        assert entry.paths == (str(patch(root, 0)), str(patch(root, 1)))
        assert f"2 images are not 16×16 like the others: '{patch(root, 0)}' is 16×7." in entry.message
        assert "--exclude FILE" in entry.fix

    def test_sizes_without_a_majority_are_a_note(self, root: Path) -> None:
        generator = np.random.default_rng(0)
        for number, file in enumerate(sorted(root.rglob("*.png"))):
            if number % 3:
                pixels = generator.integers(0, 256, (20 + number, 30, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(file)
        entry = only(audit(root))
        assert (entry.kind, entry.severity, entry.count, entry.paths) == ("mixed_sizes", "note", 65, ())
        assert "65 sizes, from 16×16 to 30×115 pixels" in entry.message


class TestClassesAndPatients:
    def test_a_class_that_is_missing_blocks(self, root: Path) -> None:
        for file in root.rglob("*class1.png"):
            file.unlink()
        entry = only(audit(root))
        assert (entry.kind, entry.severity, entry.count) == ("missing_class", "blocking", 0)
        assert entry.message == "there is no usable malignant image among 48 images."
        assert entry.fix == "Add images of the class malignant."

    @pytest.mark.parametrize(
        ("left", "found"), [(19, ["tiny_class"]), (20, []), (1, ["tiny_class", "patient_in_two_classes"])]
    )
    def test_a_tiny_class_is_a_warning(self, root: Path, left: int, found: list[str]) -> None:
        for file in sorted(root.rglob("*class1.png"))[left:]:
            file.unlink()
        result = audit(root)
        assert kinds(result) == found
        if found:
            entry = planted(result)[0]
            assert (entry.severity, entry.count) == ("warning", left)
            words = "1 image is" if left == 1 else f"{left} images are"
            assert entry.message == f"only {words} malignant, of {48 + left}; figures will be very uncertain."

    def test_a_patient_in_two_parts_of_the_official_split_blocks(self, root: Path) -> None:
        frame = read_source(root).frame
        splits = frame["patient_id"].map(lambda patient: "test" if patient > "P20" else "train").tolist()
        splits[frame.index[frame["patient_id"] == "P07"][0]] = "validation"
        splits[frame.index[frame["patient_id"] == "P09"][2]] = "test"
        file = as_csv(root, frame, official_split=splits)
        (entry,) = audit(file).blocking
        assert (entry.kind, entry.severity, entry.count) == ("patient_in_two_splits", "blocking", 2)
        assert "patient 'P07' is in 'train' and 'validation' (4 images)" in entry.message
        assert len(entry.paths) == 8
        assert "clearmargin split DATA --by patient --out split.csv" in entry.fix
        assert kinds(audit_manifest(read_source(file), ignore_official=True)) == []

    def test_unknown_patients_are_a_warning_with_every_way_on(self, root: Path) -> None:
        frame = read_source(root).frame
        for known in (0, 10):
            patients = frame["patient_id"].where(frame.index < known)
            entry = only(audit(as_csv(root, frame.assign(patient_id=patients))))
            assert (entry.kind, entry.severity, entry.count) == ("unknown_patients", "warning", 96 - known)
            for way in ("--patient-regex", "patient_id", "split by image"):
                assert way in entry.fix

    def test_few_patients_are_a_warning(self, make_folder: Build) -> None:
        entry = only(audit(make_folder(patients=19, per_class=2)))
        assert (entry.kind, entry.severity, entry.count) == ("few_patients", "warning", 19)
        assert kinds(audit(make_folder(patients=20, per_class=2, name="more"))) == []

    def test_a_pattern_makes_patients_known(self, make_folder: Build) -> None:
        data = make_folder(patients=20, per_class=2, layout="folder")
        assert "unknown_patients" in kinds(audit(data))
        assert kinds(audit(data, patient_regex=r"P\d+")) == []


class TestResult:
    @pytest.fixture
    def spoilt(self, root: Path) -> Audit:
        patch(root, 0).write_bytes(b"")
        shutil.copy(patch(root, 1, 0), patch(root, 1, 1))
        shutil.copy(patch(root, 2, 0, 0), patch(root, 2, 0, 1))
        file = patch(root, 4, 1)
        file.rename(file.parent.with_name("0") / file.name)
        return audit(root)

    def test_the_error_is_one_line_with_the_first_fix_and_the_rest_by_name(self, spoilt: Audit) -> None:
        assert [entry.kind for entry in spoilt.blocking] == ["empty", "label_conflict", "duplicate_across_labels"]
        with pytest.raises(AuditBlocked) as caught:
            spoilt.check()
        message = str(caught.value)
        assert "\n" not in message
        first = spoilt.blocking[0]
        assert message == f"empty: {first.message} {first.fix} And 2 more: label_conflict, duplicate_across_labels."

    def test_the_error_is_one_line_even_when_a_name_is_not(self, root: Path) -> None:
        (root / "P00" / "0" / "P00\n_idx5_x1_y99_class0.png").write_bytes(b"")
        found = audit(root)
        with pytest.raises(AuditBlocked, match=r"P00\\n_idx5_x1_y99_class0\.png': the file is empty") as caught:
            found.check()
        assert len(str(caught.value).splitlines()) == 1

    def test_blocking_comes_first_then_warnings_then_notes(self, root: Path, spoilt: Audit) -> None:
        (root / "notes.txt").write_text("x")
        severities = [entry.severity for entry in audit(root).findings]
        assert severities == sorted(severities, key=["blocking", "warning", "note"].index)
        assert severities[-1] == "note"

    def test_the_result_is_strict_json(self, spoilt: Audit, tmp_path: Path) -> None:
        def refuse(constant: str) -> float:
            raise AssertionError(f"{constant} is no JSON")

        spoilt.write(tmp_path / "audit.json")
        written = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"), parse_constant=refuse)
        assert written == json.loads(json.dumps(spoilt.to_dict(), allow_nan=False))
        assert written["schema"] == 1
        assert written["blocked"] is True
        assert written["data"]["source"] == "idc"
        assert written["counts"] == {"images": 95, "patients": 24, "slides": 24, "benign": 47, "malignant": 48}
        assert [step["count"] for step in written["flow"]] == [96, 96, 95]
        keys = {"kind", "severity", "message", "fix", "paths", "count", "certainty", "groups"}
        assert keys == set(written["findings"][0])
        assert written["quarantine"][0]["kind"] == "empty"

    def test_what_is_not_known_is_null(self, make_folder: Build) -> None:
        counts = audit(make_folder(patients=2, per_class=2, layout="folder")).to_dict()["counts"]
        assert (counts["patients"], counts["slides"]) == (None, None)

    def test_the_fix_list_mends_what_it_lists(self, root: Path, spoilt: Audit, tmp_path: Path) -> None:
        listing = tmp_path / "fix.txt"
        listing.write_text("".join(f"{path}\n" for path in spoilt.fix_list()), encoding="utf-8")
        mended = audit(root, exclude_file=str(listing))
        assert (planted(mended), mended.quarantine) == ([], ())
        # One empty file, one contradiction of name and folder, both sides of a contradiction, one of two copies.
        assert len(spoilt.fix_list()) == 5
        assert len(mended.manifest) == 91
        assert mended.flow == (
            ("files found", 96),
            ("labelled images", 96),
            ("not excluded", 91),
            ("images used, not in quarantine", 91),
        )

    def test_the_fix_list_mends_copies_across_an_official_split(self, root: Path, tmp_path: Path) -> None:
        frame = read_source(root).frame
        splits = frame["patient_id"].map(lambda patient: "test" if patient > "P20" else "train")
        shutil.copy(patch(root, 0), patch(root, 23))
        shutil.copy(patch(root, 1), patch(root, 2))
        file = as_csv(root, frame, official_split=splits)
        listing = tmp_path / "fix.txt"
        listing.write_text("\n".join(audit(file).fix_list()), encoding="utf-8")
        assert kinds(audit(file, exclude_file=str(listing))) == []

    def test_the_fix_list_of_nothing_but_contradictions_is_everything(self, tmp_path: Path) -> None:
        for number in range(12):
            file = tmp_path / ("malignant" if number % 2 else "benign") / f"{number}.png"
            file.parent.mkdir(exist_ok=True)
            Image.new("RGB", (16, 16), "red").save(file)
        assert len(audit(tmp_path).fix_list()) == 12

    def test_the_fix_list_holds_any_file_name(self, root: Path, tmp_path: Path) -> None:
        names = [b"P00\nx", b"# P00", b"P00\xff", b" P00", "P00\u2028".encode()]
        for number, name in enumerate(names):
            file = root / "P00" / "0" / f"{name.decode(errors='surrogateescape')}_idx5_x{number}_y99_class0.png"
            file.write_bytes(b"")
        found = audit(root)
        assert len(found.quarantine) == 5
        listing = tmp_path / "fix.txt"
        listing.write_text("".join(f"{path}\n" for path in found.fix_list()), encoding="utf-8")
        assert kinds(audit(root, exclude_file=str(listing))) == []

    def test_a_row_that_stands_twice_is_not_lost_to_the_fix_list(self, root: Path) -> None:
        frame = read_source(root).frame
        assert audit(as_csv(root, pd.concat([frame, frame.iloc[[0]]]))).fix_list() == []


@pytest.mark.real
class TestRealData:
    def test_idc_has_nineteen_edge_patches_and_no_likely_copies(self, real_data: Path) -> None:
        found = audit(real_data / "idc")
        assert {(entry.kind, entry.certainty): entry.count for entry in planted(found)} == {
            ("size_outlier", "certain"): 19,
            ("few_patients", "certain"): 16,
            ("blurred", "likely"): 7,  # each looked at: dust above the focus, or a smear on glass
            ("near_duplicate", "possible"): 2,  # the one false alarm: two edges of tissue on glass
        }
        assert found.blocking == ()
        assert (len(found.manifest), found.quarantine) == (17_337, ())
        outliers = next(entry for entry in found.findings if entry.kind == "size_outlier")
        frame = found.manifest.frame.set_index("path").loc[list(outliers.paths)]
        assert (frame[["width", "height"]] <= 50).all(axis=None)

    def test_busi_is_usable_without_masks_and_normal_images(self, real_data: Path) -> None:
        found = audit(real_data / "busi")
        assert {"mask", "normal_left_out", "unknown_patients", "mixed_sizes"} <= set(kinds(found))
        assert found.quarantine == ()
        assert found.to_dict()["counts"]["patients"] is None
        assert not any("mask" in path for path in found.manifest.frame["path"])
