"""`clearmargin download`: what it says before, after, and when it cannot."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import Answer
from tests.data.file_server import FileServer, serve

from clearmargin.data.download import DOWNLOADS

Call = Callable[..., Answer]


@pytest.fixture(autouse=True)
def _no_token_and_no_proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


def _small_tar(noise: int = 4) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in {
            "Info.txt": b"mdb001 G CIRC B 535 425 197\n",
            "mdb001.pgm": b"P5 2 2 255\n" + os.urandom(noise),
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


@pytest.mark.parametrize("arguments", [["--list"], []])
def test_list_shows_every_set_with_size_licence_and_page(call: Call, arguments: list[str]) -> None:
    answer = call("download", *arguments)
    assert (answer.code, answer.err) == (0, "")
    for name, entry in DOWNLOADS.items():
        assert f"{name}: {entry.summary}" in answer.out
        assert entry.licence in answer.out
        assert entry.page in answer.out
    assert list(Path().iterdir()) == []


def test_list_of_one_set_fetches_nothing(call: Call) -> None:
    answer = call("download", "mias", "--list")
    assert (answer.code, answer.err) == (0, "")
    assert "for research purposes only" in answer.out
    assert len(answer.out.splitlines()) == 4


def test_unknown_set_is_a_usage_error_that_names_the_closest(call: Call) -> None:
    answer = call("download", "breakhiss")
    assert answer.code == 2
    assert "there is no data set 'breakhiss'; did you mean 'breakhis'?" in answer.error
    assert call("download", "breakhiss", "--list").code == 2


def test_set_is_fetched_unpacked_and_followed_by_the_next_command(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(FileServer(_small_tar())) as server:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.port}")
        first = call("download", "mias", "--out", "my data")
        assert (first.code, server.asked[0]["path"]) == (0, DOWNLOADS["mias"].url)
        assert first.out.index("for research purposes only") < first.out.index("is ready")
        assert f"{Path('my data') / 'mias'} is ready (not verified: no checksum is published)." in first.out
        assert first.out.splitlines()[-1] == f"Next: clearmargin audit '{Path('my data') / 'mias'}'"
        assert (Path("my data") / "mias" / "mdb001.pgm").is_file()
        second = call("download", "mias", "--out", "my data")
        assert second.code == 0
        assert "is there already (unchanged since it was downloaded" in second.out
        assert len(server.asked) == 1


def test_zip_put_there_by_hand_stays_packed(call: Call, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with zipfile.ZipFile(folder / "Dataset_BUSI.zip", "w") as archive:
        archive.writestr("Dataset_BUSI_with_GT/benign/benign (1).png", b"")
    answer = call("download", "busi")
    assert answer.code == 0
    assert answer.out.splitlines()[-1] == f"Next: clearmargin audit {Path('data') / 'Dataset_BUSI.zip'}"
    assert {path.name for path in folder.iterdir()} == {"Dataset_BUSI.zip", "Dataset_BUSI.zip.sha256"}


@pytest.mark.parametrize("name", [name for name, entry in DOWNLOADS.items() if entry.kaggle])
def test_without_token_one_line_says_what_to_do(call: Call, name: str) -> None:
    entry = DOWNLOADS[name]
    answer = call("download", name)
    assert answer.code == 3
    assert entry.licence in answer.out
    for part in ("https://www.kaggle.com/settings", f"Fetch {entry.file} by hand from {entry.page}", "put it at data"):
        assert part in answer.error


@pytest.mark.parametrize("name", [name for name, entry in DOWNLOADS.items() if entry.url and not entry.kaggle])
def test_without_network_one_line_says_what_to_do(call: Call, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    entry = DOWNLOADS[name]
    answer = call("download", name)
    assert answer.code == 3
    assert "no network" in answer.error
    assert f"Fetch {entry.file} by hand from {entry.page} and put it at {Path('data') / entry.file}." in answer.error


def test_set_without_an_address_says_what_to_do(call: Call) -> None:
    answer = call("download", "cbis_ddsm_dicom")
    assert answer.code == 3
    assert "NBIA Data Retriever" in answer.error
    assert "put it at" in answer.error


def test_file_that_is_not_the_published_one_is_an_error(call: Call, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with zipfile.ZipFile(tmp_path / "data" / "breastmnist.npz", "w") as archive:
        archive.writestr("train_images.npy", b"")
    answer = call("download", "breastmnist")
    assert answer.code == 3
    assert "published 750601b1f35ba3300ea97c75c52ff8f6" in answer.error
    assert (tmp_path / "data" / "breastmnist.npz").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_ends_with_130_and_the_same_command_goes_on(tmp_path: Path) -> None:
    tar = _small_tar(200_000)
    with serve(FileServer(tar, length=len(tar) + 1, hangs_after=True)) as server:
        environment = {**os.environ, "http_proxy": f"http://127.0.0.1:{server.port}"}
        command = [sys.executable, "-m", "clearmargin", "download", "mias", "--out", str(tmp_path / "out")]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert server.all_sent.wait(30)
            partial = tmp_path / "out" / "all-mias.tar.gz.partial"
            for _ in range(3000):
                if partial.is_file() and partial.stat().st_size:
                    break
                server.over.wait(0.01)
            process.send_signal(2)
            _, errors = process.communicate(timeout=30)
        assert process.returncode == 130
        assert b"The same command goes on from there" in errors
        server.length, server.hangs_after = None, False
        subprocess.run(command, env=environment, check=True, capture_output=True)
    assert (tmp_path / "out" / "mias" / "mdb001.pgm").is_file()
