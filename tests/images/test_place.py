"""One text names any image: a file, a member, a row, a frame, a box."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearmargin.images.place import Place, file_of, parse_place, split_archive

boxes = st.tuples(st.integers(0, 99999), st.integers(0, 99999), st.integers(1, 99999), st.integers(1, 99999))


@given(
    st.text(st.characters(blacklist_characters="\0/", codec="utf-8"), min_size=1),
    st.none() | st.integers(1, 9999),
    st.none() | boxes,
)
def test_what_a_place_is_written_as_is_read_back(
    name: str, frame: int | None, box: tuple[int, int, int, int] | None
) -> None:
    written = str(Place(f"folder/{name}.dcm", frame, box))
    assert parse_place(written) == Place(f"folder/{name}.dcm", frame, box)
    assert file_of(written) == f"folder/{name}.dcm"


@pytest.mark.parametrize(
    "name",
    [
        "a#b.png",
        "a.png#",
        "a.png#xywh=1,2,3",
        "a.png#xywh=1,2,0,4",
        "a.png#frame=0",
        "a.png#frame=1.5",
        "a#frame=1.png",
    ],
)
def test_a_name_that_only_resembles_a_fragment_is_a_file(name: str) -> None:
    assert parse_place(name) == Place(name)


def test_a_file_that_is_called_like_a_fragment_is_that_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png#frame=2"
    path.write_bytes(b"x")
    assert parse_place(str(path)) == Place(str(path))


def test_an_archive_is_found_on_the_way_only_where_it_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder.zip").mkdir()
    inner = tmp_path / "folder.zip" / "data.ZIP"
    inner.write_bytes(b"x")
    assert split_archive(f"{inner}/a/b.png") == (str(inner), "a/b.png")
    assert split_archive(f"{tmp_path}/folder.zip/b.png") is None
    assert split_archive(str(inner)) is None
