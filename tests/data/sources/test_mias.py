"""mini-MIAS: what its list says, who is whose neighbour, and where a lesion is in an image."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.data.layouts import MIAS_LINES, MIAS_PROSE, draw_mammogram, save, write_mias

from clearmargin.data.manifest import Manifest
from clearmargin.data.sources import read_source
from clearmargin.data.sources.mias.info import Lesion, parse_info
from clearmargin.data.sources.options import SourceOptions
from clearmargin.errors import DataError
from clearmargin.images.place import parse_place
from clearmargin.images.read import read_image
from clearmargin.types import Finding

CROP = SourceOptions(view="crop")
NORMAL = SourceOptions(normal="benign")


def finding(manifest: Manifest, kind: str) -> Finding:
    return next(entry for entry in manifest.findings if entry.kind == kind)


def kinds(manifest: Manifest) -> set[str]:
    return {entry.kind for entry in manifest.findings}


def names(manifest: Manifest) -> list[str]:
    return [path.rpartition("/")[2] for path in manifest.frame["path"]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mias(tmp_path_factory.mktemp("mias") / "all-mias")


class TestInfo:
    def test_prose_is_passed_over_and_every_form_of_line_is_read(self) -> None:
        info = parse_info(MIAS_PROSE + MIAS_LINES)
        assert info.unclear == ()
        assert info.lesions["mdb001"] == (Lesion(False, (535, 425, 197)),)
        assert info.lesions["mdb003"] == ()
        assert info.lesions["mdb005"] == (Lesion(False, (477, 133, 30)), Lesion(False, (500, 168, 26)))
        assert info.lesions["mdb059"] == (Lesion(False, None),)
        assert info.lesions["mdb144"] == (Lesion(False, (233, 994, 29)), Lesion(True, (313, 540, 27)))
        assert info.lesions["mdb216"] == (Lesion(True, None),)
        assert len(info.lesions) == 10

    @pytest.mark.parametrize(
        "line",
        [
            "mdb001 g circ b 535 425 197",
            "MDB001 G CIRC B 535 425 197\r",
            "  mdb001\tG\tCIRC\tB\t535\t425\t197",
            "mdb001,G,CIRC,B,535,425,197",
        ],
    )
    def test_case_and_separators_do_not_matter(self, line: str) -> None:
        assert parse_info(f"REFNUM BG CLASS SEVERITY X Y RADIUS\n{line}\n").lesions == {
            "mdb001": (Lesion(False, (535, 425, 197)),)
        }

    @pytest.mark.parametrize("line", ["mdb001 G CIRC", "mdb001 G CIRC Q 1 2 3", "mdb001 G LUMP B 1 2 3", "mdb001"])
    def test_a_line_that_cannot_be_understood_is_named(self, line: str) -> None:
        info = parse_info(f"\n{line}\nmdb002 D NORM\n")
        assert info.unclear == (2,)
        assert info.lesions == {"mdb002": ()}


class TestFull:
    def test_one_row_an_image_malignant_if_any_lesion_is(self, root: Path) -> None:
        manifest = read_source(root)
        assert dict(zip(names(manifest), manifest.labels().tolist(), strict=True)) == {
            "mdb001.pgm": 0,
            "mdb002.pgm": 0,
            "mdb005.pgm": 0,
            "mdb059.pgm": 0,
            "mdb144.pgm": 1,
            "mdb212.pgm": 0,
            "mdb216.pgm": 1,
        }
        assert manifest.content == "mammogram"
        assert finding(manifest, "benign_and_malignant").paths == (str(root / "mdb144.pgm"),)

    def test_neighbours_are_one_patient_odd_right_even_left(self, root: Path) -> None:
        frame = read_source(root, options=NORMAL).frame.set_index("slide_id")
        assert frame["patient_id"].to_dict() == {
            "mdb001": "mdb001-002",
            "mdb002": "mdb001-002",
            "mdb003": "mdb003-004",
            "mdb004": "mdb003-004",
            "mdb005": "mdb005-006",
            "mdb006": "mdb005-006",
            "mdb059": "mdb059-060",
            "mdb144": "mdb143-144",
            "mdb212": "mdb211-212",
            "mdb216": "mdb215-216",
        }
        assert frame.loc["mdb001", "side"] == "right"
        assert frame.loc["mdb002", "side"] == "left"
        assert set(frame["view"]) == {"MLO"}

    def test_normal_images_are_left_out_and_said_to_be(self, root: Path) -> None:
        note = finding(read_source(root), "normal_left_out")
        assert (note.severity, note.count) == ("note", 3)
        assert note.paths == tuple(str(root / f"mdb00{number}.pgm") for number in (3, 4, 6))

    def test_normal_images_are_benign_when_asked_for(self, root: Path) -> None:
        manifest = read_source(root, options=NORMAL)
        assert len(manifest) == 10
        assert manifest.labels()[names(manifest).index("mdb003.pgm")] == 0
        assert "normal_left_out" not in kinds(manifest)
        assert finding(manifest, "normal_as_benign").count == 3


class TestCrop:
    def test_one_row_a_lesion_with_its_own_label(self, root: Path) -> None:
        manifest = read_source(root, options=CROP)
        assert manifest.content == "lesion"
        assert names(manifest) == [
            "mdb001.pgm#xywh=289,353,492,492",  # 2.5 * 197; x 535 - 246, y 1024 - 425 - 246
            "mdb002.pgm#xywh=436,658,172,172",
            "mdb005.pgm#xywh=429,843,96,96",
            "mdb005.pgm#xywh=452,808,96,96",
            "mdb144.pgm#xywh=185,0,96,96",  # moved down from -18
            "mdb144.pgm#xywh=265,436,96,96",
            "mdb212.pgm#xywh=639,94,96,96",  # of a radius of 3
        ]
        assert manifest.labels().tolist() == [0, 0, 0, 0, 0, 1, 0]
        assert manifest.frame["slide_id"].tolist()[2:4] == ["mdb005", "mdb005"]

    def test_the_crop_holds_the_lesion(self, root: Path) -> None:
        for path in read_source(root, options=CROP).frame["path"]:
            crop = read_image(path)[..., 0]
            assert crop.max() == 255, path
            box = parse_place(path).box
            assert box is not None
            if min(box[:2]) > 0:  # not moved: the lesion is in the middle
                assert crop[crop.shape[0] // 2, crop.shape[1] // 2] == 255, path

    def test_lesions_without_a_place_are_left_out_and_reported(self, root: Path) -> None:
        found = finding(read_source(root, options=CROP), "lesion_without_place")
        assert found.paths == (str(root / "mdb059.pgm"), str(root / "mdb216.pgm"))

    @pytest.mark.parametrize("normal", ["exclude", "benign"])
    def test_normal_images_have_nothing_to_cut_out(self, root: Path, normal: str) -> None:
        manifest = read_source(root, options=SourceOptions(view="crop", normal=normal))  # type: ignore[arg-type]
        assert finding(manifest, "normal_left_out").count == 3
        assert len(manifest) == 7

    def test_an_image_of_another_size_is_left_out(self, tmp_path: Path) -> None:
        write_mias(tmp_path)
        save(tmp_path / "mdb001.pgm", draw_mammogram(right=True, px=512))
        (tmp_path / "mdb002.pgm").write_bytes(b"no image")
        manifest = read_source(tmp_path, options=CROP)
        assert finding(manifest, "lesion_outside").paths == (
            str(tmp_path / "mdb001.pgm"),
            str(tmp_path / "mdb002.pgm"),
        )
        assert "mdb001" not in set(manifest.frame["slide_id"])

    def test_a_place_outside_the_image_is_never_cut(self, tmp_path: Path) -> None:
        write_mias(tmp_path, lines="mdb001 G CIRC B 1025 425 20\nmdb002 G CIRC B 0 0 20\n")
        manifest = read_source(tmp_path, options=CROP)
        assert names(manifest) == ["mdb002.pgm#xywh=0,928,96,96"]
        assert finding(manifest, "lesion_outside").count == 1


class TestLists:
    def test_images_that_are_missing_or_not_listed_are_reported(self, tmp_path: Path) -> None:
        write_mias(tmp_path)
        (tmp_path / "mdb002.pgm").unlink()
        save(tmp_path / "mdb322.pgm", draw_mammogram(right=False))
        save(tmp_path / "figure.png", draw_mammogram(right=False))
        manifest = read_source(tmp_path)
        missing = finding(manifest, "missing")
        assert (missing.severity, missing.count) == ("warning", 1)
        assert "mdb002" in missing.message
        assert finding(manifest, "unlabelled").paths == (str(tmp_path / "figure.png"), str(tmp_path / "mdb322.pgm"))

    @pytest.mark.parametrize("name", ["info.txt", "INFO.TXT"])
    def test_the_list_may_be_called_in_any_case_and_lie_elsewhere(self, tmp_path: Path, name: str) -> None:
        write_mias(tmp_path / "all-mias")
        (tmp_path / "all-mias" / "Info.txt").rename(tmp_path / name)
        assert len(read_source(tmp_path)) == 7

    def test_two_lists_that_differ_are_reported(self, tmp_path: Path) -> None:
        write_mias(tmp_path / "all-mias")
        shutil.copy(tmp_path / "all-mias" / "Info.txt", tmp_path / "Info.txt")
        assert "info_differs" not in kinds(read_source(tmp_path))
        text = (tmp_path / "Info.txt").read_text().replace("mdb001 G CIRC B", "mdb001 G CIRC M")
        (tmp_path / "Info.txt").write_text(text)
        manifest = read_source(tmp_path)
        assert finding(manifest, "info_differs").paths == (str(tmp_path / "all-mias" / "Info.txt"),)
        assert manifest.labels()[names(manifest).index("mdb001.pgm")] == 1

    def test_lines_that_cannot_be_understood_are_reported(self, tmp_path: Path) -> None:
        write_mias(tmp_path, lines=MIAS_LINES + "mdb002 G CIRC\n")
        found = finding(read_source(tmp_path), "unclear_line")
        line = (MIAS_PROSE + MIAS_LINES).count("\n") + 1
        assert f": {line}." in found.message

    def test_without_the_list_it_is_not_mias(self, tmp_path: Path) -> None:
        write_mias(tmp_path)
        (tmp_path / "Info.txt").unlink()
        with pytest.raises(DataError, match="none lies in a folder named for a class"):
            read_source(tmp_path)
        with pytest.raises(DataError, match=r"no Info\.txt that lists the images .* Put the one"):
            read_source(tmp_path, source="mias")

    def test_only_normal_images_is_an_error_that_says_so(self, tmp_path: Path) -> None:
        write_mias(tmp_path, lines="".join(f"{line}\n" for line in MIAS_LINES.splitlines() if "NORM" in line))
        with pytest.raises(DataError, match=r"no image to use.* 3 images are normal.*--normal benign"):
            read_source(tmp_path)


@pytest.mark.real
class TestReal:
    def test_images_are_read_with_patients_and_sides(self, real_data: Path) -> None:
        manifest = read_source(real_data / "mias", options=NORMAL)
        assert (manifest.source, len(manifest), manifest.frame["patient_id"].nunique()) == ("mias", 14, 7)
        labels = dict(zip(names(manifest), manifest.labels().tolist(), strict=True))
        assert {name for name, label in labels.items() if label} == {
            "mdb023.pgm",
            "mdb028.pgm",
            "mdb090.pgm",
            "mdb092.pgm",
        }
        assert finding(manifest, "missing").count == 308

    def test_the_chest_wall_of_a_right_breast_is_at_the_right(self, real_data: Path) -> None:
        frame = read_source(real_data / "mias", options=NORMAL).frame
        for path, side in zip(frame["path"], frame["side"], strict=True):
            tissue = read_image(path)[..., 0] > 40
            assert (tissue[:, 512:].sum() > tissue[:, :512].sum()) == (side == "right"), path

    def test_lesions_lie_in_tissue_where_the_list_says(self, real_data: Path) -> None:
        """Counted from the top instead, one of these crops would lie half outside the breast."""
        manifest = read_source(real_data / "mias", options=CROP)
        assert (len(manifest), int(manifest.labels().sum())) == (10, 4)
        small = [path for path in manifest.frame["path"] if not path.endswith(",492,492")]
        shares = [float(np.mean(read_image(path) > 30)) for path in small]
        assert min(shares) > 0.9

    def test_the_published_list_is_understood_whole(self, real_data: Path) -> None:
        info = parse_info((real_data / "mias" / "Info.txt").read_text(encoding="ascii"))
        lesions = [lesion for found in info.lesions.values() for lesion in found]
        assert info.unclear == ()
        assert len(info.lesions) == 322
        assert sum(not found for found in info.lesions.values()) == 207
        assert len(lesions) == 123
        assert sum(lesion.circle is not None for lesion in lesions) == 119
        mixed = [image for image, found in info.lesions.items() if len({lesion.malignant for lesion in found}) > 1]
        assert mixed == ["mdb144"]
