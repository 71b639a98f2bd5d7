"""Hostile bodies: each is one answer in the one shape, leaves no file, and the next request is answered."""

from __future__ import annotations

import io
import os
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from tests.web.conftest import MakeClient, files, png
from tests.web.in_process import InProcess

from clearmargin.web.limits import ServeLimits

PREDICT = "/api/v1/predict"
FORM = "multipart/form-data; boundary=b"
SMALL = ServeLimits(
    max_file_bytes=200_000, max_request_bytes=400_000, max_files=20, max_pixels=1_000_000, idle_seconds=0.2
)


@pytest.fixture
def small(make_client: MakeClient, private: Path) -> Iterator[InProcess]:
    """A client of a server with small limits; afterwards it answers as ever, and no file is left."""
    client = make_client(limits=SMALL)
    yield client
    assert client.post(PREDICT, files=files(("a.png", png()))).status_code == 200
    assert list(private.iterdir()) == []
    assert client.serving.slots == 0


def zipped(*members: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return stream.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_bomb(px: int = 50_000) -> bytes:
    header = struct.pack(">IIBBBBB", px, px, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(100_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def large_png() -> bytes:
    stream = io.BytesIO()
    Image.new("L", (1100, 1000)).save(stream, "PNG")
    return stream.getvalue()


def dicom_and_png() -> bytes:
    return b"\x89PNG\r\n\x1a\n".ljust(128, b"\0") + b"DICM" + png()[8:]


REFUSED: dict[str, tuple[list[tuple[str, bytes]], int, str]] = {
    "an empty file": ([("a.png", b"")], 422, "unprocessable"),
    "a truncated image": ([("a.png", png()[:900])], 422, "unprocessable"),
    "a text": ([("a.png", b"hello")], 415, "unsupported"),
    "a page with a script": ([("a.png", b"<svg><script>alert(1)</script></svg>")], 415, "unsupported"),
    "an image and DICOM at once": ([("a.png", dicom_and_png())], 415, "unsupported"),
    "a decompression bomb": ([("a.png", png_bomb())], 413, "too_large"),
    "too many pixels": ([("a.png", large_png())], 413, "too_large"),
    "too many bytes in a file": ([("a.png", bytes(200_001))], 413, "too_large"),
    "too many bytes in all": ([(f"{n}.png", bytes(150_000)) for n in range(3)], 413, "too_large"),
    "too many files": ([(f"{n}.png", b"") for n in range(21)], 413, "too_large"),
    "an empty zip": ([("a.zip", zipped())], 422, "unprocessable"),
    "a zip without images": ([("a.zip", zipped(("a.txt", b"words")))], 422, "unprocessable"),
    "half a zip": ([("a.zip", zipped(("a.png", png()))[:-30])], 422, "unprocessable"),
    "a zip that leads outside": ([("a.zip", zipped(("../../a.png", png())))], 422, "unprocessable"),
    "a zip with an absolute name": ([("a.zip", zipped(("/etc/a.png", png())))], 422, "unprocessable"),
    "a zip with a drive": ([("a.zip", zipped(("C:\\a.png", png())))], 422, "unprocessable"),
    "a zip bomb": ([("a.zip", zipped(("a.png", bytes(50 << 20))))], 413, "too_large"),
    "a zip of many bombs": ([("a.zip", zipped(*((f"{n}.png", bytes(150_000)) for n in range(5))))], 413, "too_large"),
    "a zip of too many": ([("a.zip", zipped(*((f"{n}.png", b"") for n in range(21))))], 413, "too_large"),
    "a zip in a zip": ([("a.zip", zipped(("b.zip", zipped(("a.png", png())))))], 422, "unprocessable"),
    "a zip packed in LZMA": ([("a.zip", zipped(("a.png", png()), compression=zipfile.ZIP_LZMA))], 422, "unprocessable"),
    "zips of zero members": ([(f"{n}.zip", zipped()) for n in range(20)], 422, "unprocessable"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_hostile_file_is_one_error(small: InProcess, what: str) -> None:
    sent, status, code = REFUSED[what]
    answer = small.post(PREDICT, files=files(*sent))
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert "/" not in answer.json()["error"]["message"]


def test_ten_thousand_files_are_refused_after_the_first_too_many(make_client: MakeClient, private: Path) -> None:
    client = make_client()
    answer = client.post(PREDICT, files=files(*((f"{number}.png", b"x") for number in range(10_000))))
    assert answer.json()["error"]["code"] == "too_large"
    assert list(private.iterdir()) == []


def test_members_that_are_damaged_are_rows(small: InProcess) -> None:
    content = bytearray(zipped(("a.png", png(1)), ("b.png", png(2)), compression=zipfile.ZIP_STORED))
    content[content.index(png(1)) + 500] ^= 0xFF
    rows = small.post(PREDICT, files=files(("z.zip", bytes(content)))).json()["predictions"]
    assert [row["path"] for row in rows] == ["z.zip/a.png", "z.zip/b.png"]
    assert [row["decision"] == "refused" for row in rows] == [True, False]
    assert "damaged in the archive" in rows[0]["reason"]


def test_what_is_a_zip_only_by_its_name_is_no_zip(small: InProcess) -> None:
    rows = small.post(PREDICT, files=files(("a.zip", png()))).json()["predictions"]
    assert [(row["path"], row["reason"]) for row in rows] == [("a.zip", None)]


NAMES = [
    "../../../etc/passwd",
    "/etc/passwd",
    "C:\\Users\\jane\\scan.png",
    "a\x00b.png",
    "a\r\nX-Evil: 1.png",
    "scan\u202egnp.exe",
    "x" * 5_000 + ".png",
    "loop.dcm#frame=3",
    "a.png#xywh=0,0,8,8",
    "a.zip/../../b.png",
    '"; rm -rf ~.png',
    "<img src=x onerror=alert(1)>.png",
    "München ☃.png",
    "",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_only_ever_text(small: InProcess, name: str) -> None:
    head = f'--b\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    answer = small.post(PREDICT, content=head + png() + b"\r\n--b--\r\n", headers={"Content-Type": FORM})
    if answer.status_code == 200:
        (row,) = answer.json()["predictions"]
        assert row["decision"] != "refused"
        assert row["path"].isprintable()
        assert len(row["path"]) <= 500
    else:  # a name that ends its header makes another body
        assert answer.status_code in (400, 422)


def test_no_name_reaches_the_disk(client: InProcess, private: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    opened = os.open

    def watched(path: object, *arguments: object) -> int:
        seen.append(str(path))
        return opened(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", watched)
    member = zipped(("ward7/DoeJane.png", png()))
    client.post(PREDICT, files=files(("DoeJane_1970.png", png()), ("DoeJane.zip", member)))
    assert any(str(private) in path for path in seen)
    assert not any("Doe" in path for path in seen)


def part(name: str = "files", *, head: bytes = b"", body: bytes = b"x") -> bytes:
    return b'--b\r\nContent-Disposition: form-data; name="%s"; filename="a.png"%s\r\n\r\n%s\r\n' % (
        name.encode(), head, body
    )  # fmt: skip


BROKEN: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 400),
    "no boundary in it": (b"hello", 400),
    "an end without parts": (b"--b--\r\n", 422),
    "no end": (part(), 400),
    "half a head": (b"--b\r\nContent-Disposition: form-da", 400),
    "another field": (part("other") + b"--b--\r\n", 422),
    "no disposition": (b"--b\r\n\r\nx\r\n--b--\r\n", 422),
    "a head without end": (b"--b\r\nA: " + b"a" * 100_000, 400),
    "too many headers": (part(head=b"\r\nA: b" * 100) + b"--b--\r\n", 400),
    "a header that is none": (b"--b\r\n\x00\x01\x02\r\n\r\nx\r\n--b--\r\n", 400),
    "noise": (bytes(range(256)) * 40, 400),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_body_is_one_error(small: InProcess, what: str) -> None:
    body, status = BROKEN[what]
    answer = small.post(PREDICT, content=body, headers={"Content-Type": FORM})
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (None, 415),
        ("application/json", 415),
        ("image/png", 415),
        ("multipart/mixed; boundary=b", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        ("multipart/form-data; boundary=" + "b" * 10_000, 400),
    ],
)
def test_a_body_of_another_kind_is_one_error(small: InProcess, kind: str | None, status: int) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    assert small.post(PREDICT, content=part() + b"--b--\r\n", headers=headers).status_code == status


def test_a_body_that_stops_coming_is_too_slow(small: InProcess) -> None:
    exchange = small.send_parts(PREDICT, [part(body=png()), "nothing"], content_type=FORM)
    assert exchange.status == 408
    assert exchange.headers["connection"] == "close"


def test_a_body_that_comes_in_drops_is_too_slow(make_client: MakeClient) -> None:
    client = make_client(limits=ServeLimits(body_seconds=0.0))
    exchange = client.send_parts(PREDICT, [part(), *[b"x"] * 5, "nothing"], content_type=FORM)
    assert exchange.status == 408


def test_a_client_that_leaves_in_the_middle_costs_nothing(small: InProcess) -> None:
    exchange = small.send_parts(PREDICT, [part(body=png())[:700], "disconnect"], content_type=FORM)
    assert exchange.status is None


def test_more_bytes_than_promised_are_counted_as_they_come(small: InProcess) -> None:
    exchange = small.send_parts(PREDICT, [part("other"), *[bytes(100_000)] * 5], content_type=FORM)
    assert exchange.status == 413


def test_a_body_may_come_byte_by_byte(small: InProcess) -> None:
    whole = part(body=png()) + b"--b--\r\n"
    exchange = small.send_parts(PREDICT, [whole[at : at + 1] for at in range(len(whole))], content_type=FORM)
    assert exchange.status == 200


def test_a_child_that_is_killed_costs_no_answer(
    small: InProcess, kill_children: Callable[[threading.Event], None]
) -> None:
    done = threading.Event()
    killer = threading.Thread(target=kill_children, args=(done,))
    killer.start()
    try:
        answers = [small.post(PREDICT, files=files(("a.png", png(seed)))).status_code for seed in range(20)]
    finally:
        done.set()
        killer.join()
    assert set(answers) <= {200, 422}  # killed twice over one file it is refused
    assert answers.count(200) >= 15


@pytest.fixture
def kill_children() -> Callable[[threading.Event], None]:
    """Kills one decoder after the other until the event is set."""
    from clearmargin.images import isolate

    def kill(done: threading.Event) -> None:
        while not done.wait(0.05):
            for child in list(isolate._children._idle):
                child.kill()

    return kill
