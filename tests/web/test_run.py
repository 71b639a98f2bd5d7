"""The server as a process: its address, its token, its end, and what it leaves on the disk."""

from __future__ import annotations

import os
import signal
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from tests.bundle.small_bundle import write_working
from tests.web.conftest import files, png
from tests.web.server import Server, serving

from clearmargin.bundle.read import SUMS
from clearmargin.cli import main
from clearmargin.errors import UsageError
from clearmargin.images.preprocess import Preprocessing
from clearmargin.web.run import address_of, find_token, is_loopback, open_socket, private_folder

PREDICT, HEALTH = "/api/v1/predict", "/api/v1/health"
ONE = files(("DoeJane.png", png()))
FORM = "multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="files"; filename="DoeJane.png"\r\n\r\n'
TOKEN = "a-token-of-sixteen-or-more"


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server"), bundle) as running:
        yield running


def raw(server: Server, content: bytes) -> bytes:
    """All that the server answers to these bytes, until it closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(content)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer


def test_it_says_what_it_serves_and_answers(server: Server) -> None:
    assert server.errors.read_text() == f"Serving small on {server.url}\n"
    with server.client() as client:
        answer = client.post(PREDICT, files=ONE)
        assert answer.status_code == 200
        assert "server" not in answer.headers
        assert client.get("/api/v1/models").status_code == 200


@pytest.mark.parametrize(
    "content",
    [
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 70_000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
        b"POST /api/v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"POST /api/v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"GET /api/v1/health HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_request_is_one_error_and_closed(server: Server, content: bytes) -> None:
    answer = raw(server, content)
    assert answer.startswith(b"HTTP/1.1 4")
    assert b'"error"' in answer
    with server.client() as client:
        assert client.get(HEALTH).status_code == 200


def test_clients_that_leave_at_any_byte_leave_nothing(server: Server) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="files"; filename="DoeJane.png"\r\n\r\n'
        + png()
        + b"\r\n--b--\r\n"
    )
    head = (
        b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n" % PREDICT.encode()
    )
    whole = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    for length in (1, 60, len(whole) - len(body), len(whole) - 700, len(whole) - 1, len(whole)):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(whole[:length])
    with server.client() as client:
        assert client.post(PREDICT, files=ONE).status_code == 200
        while "requests_at_work 0.0" not in client.get("/api/v1/metrics").text:
            pass
    (private,) = (server.errors.parent / "tmp").iterdir()
    assert list(private.iterdir()) == []
    assert stat.S_IMODE(private.stat().st_mode) == 0o700


def test_a_body_above_the_limit_is_told_so_while_it_is_still_sent(server: Server) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(600):
            yield bytes(1 << 20)

    with server.client() as client:
        kind = {"Content-Type": FORM, "Content-Length": str(600 << 20)}
        assert client.post(PREDICT, content=endless(), headers=kind).status_code == 413
        assert client.get(HEALTH).status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_the_requests_under_way(bundle: Path, tmp_path: Path, number: int) -> None:
    with serving(tmp_path, bundle) as server:

        def slowly() -> Iterator[bytes]:
            yield PART
            with server.client() as other:
                while "requests_at_work 1.0" not in other.get("/api/v1/metrics").text:
                    pass
            server.process.send_signal(number)
            with suppress(ConnectionRefusedError):
                while True:  # until no new connection is taken
                    socket.create_connection(("127.0.0.1", server.port)).close()
            yield png() + b"\r\n--b--\r\n"

        with server.client() as client:
            answer = client.post(PREDICT, content=slowly(), headers={"Content-Type": FORM})
        assert answer.status_code == 200
        assert server.process.wait(60) == 0
        assert list((tmp_path / "tmp").iterdir()) == []
        assert server.errors.read_text() == f"Serving small on {server.url}\n"


def test_one_that_was_killed_is_swept_up_by_the_next(bundle: Path, tmp_path: Path) -> None:
    with serving(tmp_path, bundle) as server:
        server.stop(signal.SIGKILL)
        (left,) = (tmp_path / "tmp").iterdir()
        (left / "upload").write_bytes(b"an image")
    with serving(tmp_path, bundle, "--host", "127.0.0.2") as server:
        assert not left.exists()
        with server.client() as client:
            assert client.get(HEALTH).status_code == 200  # its own address is a name that it knows
        assert server.stop() == 0


def test_with_a_token_it_answers_who_brings_it(bundle: Path, tmp_path: Path) -> None:
    with serving(tmp_path, bundle, "--host", "0.0.0.0", CLEARMARGIN_TOKEN=TOKEN) as server:
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client:
            assert client.get(HEALTH).status_code == 200
            assert client.post(PREDICT, files=ONE).status_code == 401
            assert client.post(PREDICT, files=ONE, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert server.stop() == 0
        assert TOKEN not in server.errors.read_text()


def error_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["serve", *map(str, arguments)])
    (line,) = capsys.readouterr().err.splitlines()
    return code, line


def test_a_port_that_is_taken_is_one_line(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        code, line = error_of(capsys, bundle, "--port", port, "--state", tmp_path)
    assert code == 2
    assert str(port) in line and "Give another port" in line


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere.invalid", "not a host"])
def test_an_address_of_another_machine_is_one_line(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEARMARGIN_TOKEN", TOKEN)
    code, line = error_of(capsys, bundle, "--host", host, "--port", 0, "--state", tmp_path)
    assert code == 2
    assert host in line


def test_an_open_address_without_a_token_is_one_line(
    bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLEARMARGIN_TOKEN", raising=False)
    code, line = error_of(capsys, bundle, "--host", "0.0.0.0")
    assert code == 2
    assert "token_urlsafe" in line


def test_a_damaged_bundle_ends_it_before_the_port_is_opened(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    write_working(broken, name="cbis_ddsm", spec=Preprocessing(width=16, height=16))
    (broken / SUMS).write_text((broken / SUMS).read_text().replace("a", "b", 1))
    code, line = error_of(capsys, bundle, broken, "--port", 0, "--state", tmp_path / "state")
    assert code == 4
    assert "broken" in line


def test_a_file_of_a_token_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLEARMARGIN_TOKEN", raising=False)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert find_token("0.0.0.0", tmp_path / "token") == TOKEN
    assert find_token("127.0.0.1", None) is None
    monkeypatch.setenv("CLEARMARGIN_TOKEN", TOKEN)
    assert find_token("127.0.0.1", None) == TOKEN


@pytest.mark.parametrize("content", ["", "short", "with a blank in it", "ü" * 20, "a\nb" * 10])
def test_a_token_that_guards_nothing_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content, encoding="utf-8")
    with pytest.raises(UsageError):
        find_token("127.0.0.1", tmp_path / "token")
    with pytest.raises(UsageError):
        find_token("127.0.0.1", tmp_path / "nothing")


@pytest.mark.parametrize(
    ("host", "only_here"),
    [
        *((host, True) for host in ("127.0.0.1", "127.8.9.1", "localhost", "::1")),
        *((host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "localhost.evil.example", "")),
    ],
)
def test_loopback_is_told_from_the_rest(host: str, only_here: bool) -> None:
    assert is_loopback(host) is only_here


def test_the_address_can_be_opened_in_a_browser() -> None:
    with open_socket("127.0.0.1", 0) as opened:
        assert address_of(opened) == f"http://127.0.0.1:{opened.getsockname()[1]}"


def test_folders_of_others_that_live_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mine, dead, odd = (tmp_path / f"clearmargin-serve-{who}-x1" for who in (os.getpid(), 2**22 - 7, "odd"))
    for folder in (mine, dead, odd):
        folder.mkdir()
    with private_folder() as folder:
        assert folder.parent == tmp_path
        assert mine.exists() and odd.exists() and not dead.exists()
    assert not folder.exists()
