"""Archives are read in place, whatever they hold; hostile ones are refused in one line and nothing lands on disk."""

from __future__ import annotations

import contextlib
import io
import stat
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearmargin.errors import DataError, ImageError
from clearmargin.images.archive import ArchiveLimits, list_members
from clearmargin.images.limits import Limits
from clearmargin.images.npz import list_arrays, read_array, read_inside
from clearmargin.images.read import read_bytes, read_encoded, read_image


def png(value: int = 7) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((5, 4, 3), value, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def zip_of(path: Path, members: dict[str, bytes], **options: int) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


class TestZip:
    def test_a_member_reads_as_the_file_would(self, tmp_path: Path) -> None:
        path = zip_of(tmp_path / "d.zip", {"benign/ä b.png": png(3), "x/": b""})
        (tmp_path / "plain.png").write_bytes(png(3))
        assert list_members(str(path)) == ["benign/ä b.png"]
        np.testing.assert_array_equal(read_image(path / "benign/ä b.png"), read_image(tmp_path / "plain.png"))
        assert read_encoded(path / "benign/ä b.png").sha256 == read_encoded(tmp_path / "plain.png").sha256

    def test_a_box_of_a_member_is_cut_and_is_another_content(self, tmp_path: Path) -> None:
        path = zip_of(tmp_path / "d.zip", {"a.png": png()})
        assert read_image(f"{path}/a.png#xywh=1,2,3,2").shape == (2, 3, 3)
        hashes = {read_encoded(f"{path}/a.png{part}").sha256 for part in ("", "#xywh=0,0,2,2", "#xywh=1,0,2,2")}
        assert len(hashes) == 3

    @pytest.mark.parametrize(
        "name",
        ["../evil.png", "a/../../evil.png", "/etc/evil.png", "C:\\evil.png", "..\\evil.png", "a\\..\\..\\e.png", ".."],
    )
    def test_a_name_that_leads_outside_refuses_the_archive(self, tmp_path: Path, name: str) -> None:
        path = zip_of(tmp_path / "d.zip", {"benign/a.png": png(), name: png()})
        with pytest.raises(DataError, match=r"d\.zip: the member '.*' leads outside the archive"):
            list_members(str(path))
        with pytest.raises(ImageError, match="leads outside"):
            read_image(path / "benign/a.png")
        assert sorted(file.name for file in tmp_path.iterdir()) == ["d.zip"]

    def test_a_link_in_an_archive_is_never_followed(self, tmp_path: Path) -> None:
        (tmp_path / "secret.png").write_bytes(png())
        path = tmp_path / "d.zip"
        with zipfile.ZipFile(path, "w") as archive:
            link = zipfile.ZipInfo("benign/a.png")
            link.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(link, "../../secret.png")
        assert list_members(str(path)) == []
        with pytest.raises(ImageError, match="no such member"):
            read_image(path / "benign/a.png")

    def test_limits_on_number_total_and_one_member(self, tmp_path: Path) -> None:
        path = zip_of(tmp_path / "d.zip", {f"{number}.png": bytes(1000) for number in range(3)})
        with pytest.raises(DataError, match="3 members, more than the limit of 2"):
            list_members(str(path), ArchiveLimits(max_members=2))
        path.touch()
        with pytest.raises(DataError, match="unpacks to 3,000 bytes, more than the limit of 2,999"):
            list_members(str(path), ArchiveLimits(max_total_bytes=2999))
        with pytest.raises(ImageError, match="1,000 bytes, more than the limit of 999") as caught:
            read_bytes(path / "0.png", Limits(max_bytes=999))
        assert caught.value.kind == "too_large"

    def test_a_member_that_lies_about_its_size_is_refused(self, tmp_path: Path) -> None:
        path = zip_of(tmp_path / "d.zip", {"a.png": bytes(100_000)})
        data = path.read_bytes()
        lied = data.replace(struct.pack("<I", 100_000), struct.pack("<I", 50))
        assert lied != data
        path.write_bytes(lied)
        with pytest.raises(ImageError):
            read_bytes(path / "a.png")

    def test_an_encrypted_archive_says_so(self, tmp_path: Path) -> None:
        path = zip_of(tmp_path / "d.zip", {"a.png": png()})
        data = bytearray(path.read_bytes())
        for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
            data[data.index(signature) + offset] |= 1
        path.write_bytes(data)
        with pytest.raises(DataError, match="is encrypted"):
            list_members(str(path))

    def test_two_members_of_one_name_refuse_the_archive(self, tmp_path: Path) -> None:
        path = tmp_path / "d.zip"
        with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.png", png(1))
            archive.writestr("a.png", png(2))
        with pytest.raises(DataError, match=r"two members are called 'a\.png'"):
            list_members(str(path))

    def test_an_archive_cut_anywhere_is_one_clear_error(self, tmp_path: Path) -> None:
        whole = zip_of(tmp_path / "d.zip", {"a.png": png(), "b.png": png(9)}).read_bytes()
        for length in range(0, len(whole), 7):
            path = tmp_path / f"{length}.zip"
            path.write_bytes(whole[:length])
            with pytest.raises(DataError, match="Fetch it again"):
                list_members(str(path))

    def test_any_changed_byte_gives_the_same_pixels_or_an_error(self, tmp_path: Path) -> None:
        whole = zip_of(tmp_path / "d.zip", {"a.png": png()}).read_bytes()
        expected = read_image(tmp_path / "d.zip" / "a.png")
        for place in range(len(whole)):
            path = tmp_path / f"c{place}.zip"
            changed = bytearray(whole)
            changed[place] ^= 0x5A
            path.write_bytes(changed)
            with contextlib.suppress(ImageError):
                np.testing.assert_array_equal(read_image(path / "a.png"), expected)

    def test_a_replaced_archive_is_read_anew(self, tmp_path: Path) -> None:
        path = zip_of(tmp_path / "d.zip", {"a.png": png(1)})
        assert read_image(path / "a.png")[0, 0, 0] == 1
        zip_of(path, {"a.png": png(2), "more.png": png()})
        assert read_image(path / "a.png")[0, 0, 0] == 2


class TestNpz:
    def test_a_row_is_an_image(self, tmp_path: Path) -> None:
        images = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
        np.savez_compressed(tmp_path / "d.npz", train_images=images, train_labels=np.zeros((3, 1)))
        assert list_arrays(str(tmp_path / "d.npz")) == {"train_images": (3, 4, 5), "train_labels": (3, 1)}
        np.testing.assert_array_equal(read_image(tmp_path / "d.npz/train_images/2")[:, :, 0], images[2])

    @pytest.mark.parametrize("row", ["3", "-1", "x", "", "1/2"])
    def test_no_such_row(self, tmp_path: Path, row: str) -> None:
        np.savez(tmp_path / "d.npz", a=np.zeros((3, 4, 5), np.uint8))
        with pytest.raises(ImageError):
            read_image(f"{tmp_path}/d.npz/a/{row}")

    def test_python_objects_are_never_loaded(self, tmp_path: Path) -> None:
        class Bomb:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

        np.savez(tmp_path / "d.npz", a=np.array([Bomb()], dtype=object), allow_pickle=True)
        for call in (lambda: list_arrays(str(tmp_path / "d.npz")), lambda: read_array(str(tmp_path / "d.npz"), "a")):
            with pytest.raises(DataError, match="Python objects, which are never loaded"):
                call()
        assert not (tmp_path / "ran").exists()

    def test_an_array_above_the_limit_is_not_read(self, tmp_path: Path) -> None:
        np.savez_compressed(tmp_path / "d.npz", a=np.zeros((1000, 100, 100), np.uint8))
        with pytest.raises(DataError, match="10,000,000 bytes, more than the limit of 9,999,999"):
            read_array(str(tmp_path / "d.npz"), "a", ArchiveLimits(max_array_bytes=9_999_999))

    def test_a_header_that_promises_more_than_there_is(self, tmp_path: Path) -> None:
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 10**6)})
        zip_of(tmp_path / "d.npz", {"a.npy": stream.getvalue()})
        with pytest.raises(DataError, match="more than the limit"):
            read_array(str(tmp_path / "d.npz"), "a")

    def test_members_of_a_zip_are_not_arrays_and_the_other_way_round(self, tmp_path: Path) -> None:
        zip_of(tmp_path / "d.npz", {"a.npy": b"nothing of the kind"})
        with pytest.raises(DataError, match="is not an array"):
            list_arrays(str(tmp_path / "d.npz"))
        with pytest.raises(ImageError):
            read_inside(str(tmp_path / "d.npz"), "a/0", Limits())
