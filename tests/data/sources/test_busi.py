"""BUSI: masks are no images, normal is no class, and a crop is the box that the masks show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.data.layouts import draw_mask, draw_ultrasound, save, write_busi

from clearmargin.data.audit import audit_manifest
from clearmargin.data.manifest import Manifest
from clearmargin.data.sources import read_source
from clearmargin.data.sources.options import SourceOptions
from clearmargin.errors import DataError
from clearmargin.images.names import parse_busi_name
from clearmargin.images.place import parse_place
from clearmargin.images.read import read_image
from clearmargin.types import Finding

CROP = SourceOptions(view="crop")
TOP = "Dataset_BUSI_with_GT"


def finding(manifest: Manifest, kind: str) -> Finding:
    return next(entry for entry in manifest.findings if entry.kind == kind)


def kinds(manifest: Manifest) -> set[str]:
    return {entry.kind for entry in manifest.findings}


def names(manifest: Manifest) -> list[str]:
    return [path.rpartition("/")[2] for path in manifest.frame["path"]]


@pytest.mark.parametrize(
    ("name", "kind", "image", "is_mask"),
    [
        ("benign (1).png", "benign", "benign (1)", False),
        ("benign (1)_mask.png", "benign", "benign (1)", True),
        ("malignant (210)_mask_2.PNG", "malignant", "malignant (210)", True),
        ("Normal(7).jpg", "normal", "Normal(7)", False),
    ],
)
def test_names_give_class_image_and_mask(name: str, kind: str, image: str, is_mask: bool) -> None:
    facts = parse_busi_name(name)
    assert facts is not None
    assert (facts.kind, facts.image, facts.is_mask) == (kind, image, is_mask)


@pytest.mark.parametrize(
    "name", ["benign_1.png", "benign 1.png", "benign (a).png", "my benign (1).png", "benign (1)x.png"]
)
def test_another_name_says_nothing(name: str) -> None:
    assert parse_busi_name(name) is None


class TestFull:
    def test_masks_are_never_images(self, tmp_path: Path) -> None:
        manifest = read_source(write_busi(tmp_path))
        assert dict(zip(names(manifest), manifest.labels().tolist(), strict=True)) == {
            "benign (1).png": 0,
            "benign (2).png": 0,
            "benign (3).png": 0,
            "malignant (1).png": 1,
            "malignant (2).png": 1,
        }
        assert manifest.content == "ultrasound"
        assert finding(manifest, "mask").count == 7
        assert finding(manifest, "mask").severity == "note"
        assert not manifest.knows_patients
        assert "orphan_mask" not in kinds(manifest)

    def test_normal_images_follow_the_option(self, tmp_path: Path) -> None:
        note = finding(read_source(write_busi(tmp_path)), "normal_left_out")
        assert (note.severity, note.count) == ("note", 1)
        manifest = read_source(tmp_path, options=SourceOptions(normal="benign"))
        assert manifest.labels()[names(manifest).index("normal (1).png")] == 0
        assert finding(manifest, "normal_as_benign").count == 1

    def test_a_mask_without_its_image_is_reported(self, tmp_path: Path) -> None:
        write_busi(tmp_path)
        (tmp_path / TOP / "benign" / "benign (2).png").unlink()
        manifest = read_source(tmp_path)
        assert {Path(path).name for path in finding(manifest, "orphan_mask").paths} == {
            "benign (2)_mask.png",
            "benign (2)_mask_1.png",
        }
        assert "benign (2)_mask.png" not in names(manifest)

    def test_a_mask_in_another_folder_is_not_the_images(self, tmp_path: Path) -> None:
        save(tmp_path / "a" / "benign (1).png", draw_ultrasound(1))
        save(tmp_path / "b" / "benign (1)_mask.png", draw_mask((1, 1, 9, 9)))
        manifest = read_source(tmp_path)
        assert finding(manifest, "orphan_mask").count == 1

    def test_without_folders_the_name_gives_the_class(self, tmp_path: Path) -> None:
        for name in ("benign (1).png", "malignant (1).png"):
            save(tmp_path / name, draw_ultrasound(len(name)))
        assert read_source(tmp_path).labels().tolist() == [0, 1]

    def test_a_name_against_its_folder_blocks(self, tmp_path: Path) -> None:
        write_busi(tmp_path)
        wrong = save(tmp_path / TOP / "malignant" / "benign (9).png", draw_ultrasound(99))
        audit = audit_manifest(read_source(tmp_path))
        conflict = next(entry for entry in audit.findings if entry.kind == "label_conflict")
        assert conflict.paths == (str(wrong),)

    def test_other_files_are_reported(self, tmp_path: Path) -> None:
        write_busi(tmp_path)
        save(tmp_path / "figure.png", draw_ultrasound(5))
        (tmp_path / "readme.txt").write_text("BUSI")
        manifest = read_source(tmp_path)
        assert finding(manifest, "unlabelled").paths == (str(tmp_path / "figure.png"),)
        assert finding(manifest, "other_file").count == 1

    def test_only_normal_images_is_an_error_that_says_so(self, tmp_path: Path) -> None:
        save(tmp_path / "normal (1).png", draw_ultrasound(5))
        with pytest.raises(DataError, match=r"no image to use\. 1 image is normal.*--normal benign"):
            read_source(tmp_path)


class TestCrop:
    def test_a_crop_is_the_box_of_all_masks_with_a_margin(self, tmp_path: Path) -> None:
        manifest = read_source(write_busi(tmp_path), options=CROP)
        assert manifest.content == "lesion"
        assert names(manifest)[:2] == [
            "benign (1).png#xywh=12,17,46,26",  # 20,25 30×10 and 8 around it
            "benign (2).png#xywh=12,0,64,43",  # with 60,5 8×8: 20,5 48×30, cut off at the top
        ]
        assert [read_image(path).shape for path in manifest.frame["path"][:2]] == [(26, 46, 3), (43, 64, 3)]

    def test_the_margin_is_a_tenth_of_a_large_lesion(self, tmp_path: Path) -> None:
        save(tmp_path / "malignant (1).png", draw_ultrasound(1, 400, 300))
        save(tmp_path / "malignant (1)_mask.png", draw_mask((100, 100, 200, 50), width=400, height=300))
        (path,) = read_source(tmp_path, options=CROP).frame["path"]
        assert parse_place(path).box == (80, 80, 240, 90)

    @pytest.mark.parametrize(
        ("mask", "reason"),
        [
            (None, "no mask"),
            (draw_mask(), "an empty mask"),
            (draw_mask((1, 1, 5, 5), width=81), "a mask of another size"),
            (draw_mask((0, 0, 80, 60)), "a mask that is white everywhere"),
        ],
    )
    def test_a_lesion_that_no_mask_shows_is_left_out(
        self, tmp_path: Path, mask: np.ndarray | None, reason: str
    ) -> None:
        write_busi(tmp_path)
        save(tmp_path / TOP / "benign" / "benign (7).png", draw_ultrasound(7))
        if mask is not None:
            save(tmp_path / TOP / "benign" / "benign (7)_mask.png", mask)
        manifest = read_source(tmp_path, options=CROP)
        found = finding(manifest, "lesion_without_place")
        assert found.paths == (str(tmp_path / TOP / "benign" / "benign (7).png"),)
        assert f"{reason} (1)" in found.message
        assert len(manifest) == 5
        assert len(read_source(tmp_path)) == 6

    def test_a_damaged_mask_or_image_is_left_out(self, tmp_path: Path) -> None:
        write_busi(tmp_path)
        (tmp_path / TOP / "benign" / "benign (1)_mask.png").write_bytes(b"no image")
        (tmp_path / TOP / "malignant" / "malignant (1).png").write_bytes(b"no image")
        manifest = read_source(tmp_path, options=CROP)
        assert finding(manifest, "lesion_without_place").count == 2
        assert len(manifest) == 3

    @pytest.mark.parametrize("normal", ["exclude", "benign"])
    def test_normal_images_have_nothing_to_cut_out(self, tmp_path: Path, normal: str) -> None:
        options = SourceOptions(view="crop", normal=normal)  # type: ignore[arg-type]
        manifest = read_source(write_busi(tmp_path), options=options)
        assert finding(manifest, "normal_left_out").count == 1
        assert len(manifest) == 5


@pytest.mark.real
class TestReal:
    def test_images_are_read_without_their_masks(self, real_data: Path) -> None:
        manifest = read_source(real_data / "busi")
        assert (manifest.source, len(manifest), int(manifest.labels().sum())) == ("busi", 40, 20)
        assert finding(manifest, "normal_left_out").count == 8
        assert finding(manifest, "mask").count == 49

    def test_crops_hold_every_white_pixel_of_the_masks(self, real_data: Path) -> None:
        manifest = read_source(real_data / "busi", options=CROP)
        assert len(manifest) == 40
        for path in manifest.frame["path"]:
            place = parse_place(path)
            assert place.box is not None
            left, top, width, height = place.box
            image = Path(place.file)
            masks = [read_image(mask) > 127 for mask in image.parent.glob(f"{image.stem}_mask*.png")]
            inside = sum(int(mask[top : top + height, left : left + width].sum()) for mask in masks)
            assert inside == sum(int(mask.sum()) for mask in masks) > 0
            assert read_image(path).shape[:2] == (height, width)
