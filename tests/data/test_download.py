"""Downloads: whole or not at all, resumed without fetching anything twice, verified, and harmless when hostile."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.file_server import FileServer, serve

from clearmargin.data.download import DOWNLOADS, Download, Downloaded, Patience, describe, download
from clearmargin.data.download.kaggle import kaggle_authorization
from clearmargin.data.download.unpack import UnpackLimits, unpack_tar
from clearmargin.data.download.verify import parse_checksum
from clearmargin.errors import DataError, Interrupted, UnknownName, UsageError
from clearmargin.types import Listener


def zip_bytes(size: int = 300_000, *, seed: int = 0) -> bytes:
    """A zip that does not compress, of about so many bytes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("benign/a.png", np.random.default_rng(seed).bytes(size))
    return packed.getvalue()


def tar_bytes(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def md5(content: bytes) -> str:
    return f"md5:{hashlib.md5(content, usedforsecurity=False).hexdigest()}"


class Bench:
    """A web server, an empty folder, and a clock that does not make anybody wait."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.waited, self.notes = folder, [], []
        self.stack = ExitStack()

    waited: list[float]
    notes: list[str]

    def serve(self, content: bytes, **options: object) -> FileServer:
        return self.stack.enter_context(serve(FileServer(content, **options)))  # type: ignore[arg-type]

    def entry(self, server: FileServer, file: str = "file.zip", **options: object) -> Download:
        entry = Download("a set", "https://example.org/page", "CC BY 4.0", file, url=server.url(file))
        return replace(entry, **options)  # type: ignore[arg-type]

    def get(self, entry: Download, *, tries: int = 4, listener: Listener | None = None) -> Downloaded:
        bench = self

        class Noting(Listener):
            def note(self, text: str) -> None:
                bench.notes.append(text)

        patience = Patience(tries=tries, timeout_s=0.3, sleep=self.waited.append)
        return download("set", self.folder, catalogue={"set": entry}, patience=patience, listener=listener or Noting())

    @property
    def names(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    made = Bench(tmp_path / "data")
    with made.stack:
        yield made


# The catalogue


@pytest.mark.parametrize("name", DOWNLOADS)
def test_every_entry_says_what_it_is_whose_rules_hold_and_how_to_get_it(name: str) -> None:
    entry = DOWNLOADS[name]
    assert entry.summary
    assert entry.licence
    assert re.fullmatch(r"https?://\S+", entry.page)
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", entry.file)
    assert name == "cbis_ddsm_dicom" or entry.url is not None
    if entry.url is None:
        assert entry.by_hand
    else:
        assert re.fullmatch(r"https?://[\w.-]+/\S+", entry.url)
        assert entry.kind is not None
        assert entry.kaggle == entry.url.startswith("https://www.kaggle.com/api/v1/")
    if entry.checksum is not None:
        parse_checksum(entry.checksum)
    remedy = entry.remedy(Path("data"))
    assert entry.page in remedy
    assert str(Path("data") / entry.file) in remedy
    for part in (entry.summary, entry.licence, entry.page):
        assert part in describe(name, entry)


def test_no_two_entries_end_up_in_the_same_place() -> None:
    files = [entry.file for entry in DOWNLOADS.values()]
    assert len(set(files)) == len(files)
    assert not set(files) & set(DOWNLOADS) - {"cbis_ddsm_dicom"}


def test_unknown_data_set_names_the_closest(bench: Bench) -> None:
    with pytest.raises(UnknownName, match="did you mean 'breastmnist'"):
        download("breastmist", bench.folder)
    assert not bench.folder.exists()


def test_importing_the_package_loads_no_network_code() -> None:
    code = "import sys, clearmargin.cli; assert not {'urllib.request', 'http.client', 'ssl'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# The ordinary way


def test_download_is_whole_verified_and_leaves_nothing_temporary(bench: Bench) -> None:
    content = zip_bytes()
    server = bench.serve(content)
    result = bench.get(bench.entry(server, checksum=md5(content)))
    assert result == Downloaded(bench.folder / "file.zip", fetched=True, check="verified: md5 as published")
    assert result.path.read_bytes() == content
    assert bench.names == {"file.zip", "file.zip.sha256"}
    assert (bench.folder / "file.zip.sha256").read_text() == f"{hashlib.sha256(content).hexdigest()}  file.zip\n"
    assert re.fullmatch(r"clearmargin/\d+\.\d+\.\d+", server.asked[0]["user-agent"])
    assert "range" not in server.asked[0]


def test_second_call_downloads_nothing_and_verifies_again(bench: Bench) -> None:
    content = zip_bytes()
    server = bench.serve(content)
    for checksum, check in ((md5(content), "verified"), (None, "unchanged since it was downloaded; not verified")):
        entry = bench.entry(server, checksum=checksum)
        bench.get(entry)
        asked = len(server.asked)
        again = bench.get(entry)
        assert not again.fetched
        assert again.check.startswith(check)
        assert len(server.asked) == asked


def test_without_published_checksum_it_says_so(bench: Bench) -> None:
    assert bench.get(bench.entry(bench.serve(zip_bytes()))).check == "not verified: no checksum is published"


def test_progress_is_told_in_bytes_and_ends_at_the_end(bench: Bench) -> None:
    heard: list[tuple[str, int, int]] = []

    class Hearing(Listener):
        def stage(self, name: str) -> None:
            heard.append((name, 0, 0))

        def advance(self, done: int, total: int) -> None:
            heard.append((heard[-1][0], done, total))

    content = zip_bytes()
    bench.get(bench.entry(bench.serve(content)), listener=Hearing())
    assert list(dict.fromkeys(name for name, _, _ in heard)) == ["download", "verify"]
    for stage in ("download", "verify"):
        steps = [done for name, done, _ in heard if name == stage]
        assert steps == sorted(steps)
        assert (stage, len(content), len(content)) in heard


def test_a_server_that_tells_no_length_is_read_to_its_end(bench: Bench) -> None:
    for chunked in (False, True):
        content = zip_bytes(seed=chunked)
        server = bench.serve(content, says_length=False, chunked=chunked)
        assert bench.get(bench.entry(server, f"f{chunked}.zip")).path.read_bytes() == content


def test_http_proxy_of_the_environment_is_used(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    content = zip_bytes()
    server = bench.serve(content)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.port}")
    entry = bench.entry(server, url="http://images.invalid/file.zip")
    assert bench.get(entry).path.read_bytes() == content
    assert server.asked[0]["path"] == "http://images.invalid/file.zip"


# Going on


def test_resume_after_a_cut_is_identical_and_fetches_nothing_twice(bench: Bench) -> None:
    content = zip_bytes()
    server = bench.serve(content, cuts=[100_000, 50_000])
    assert bench.get(bench.entry(server)).path.read_bytes() == content
    assert [ask.get("range") for ask in server.asked] == [None, "bytes=100000-", "bytes=150000-"]
    assert {ask.get("if-range") for ask in server.asked[1:]} == {'"one"'}
    assert server.sent == len(content)
    assert bench.waited == [1.0, 2.0]
    assert bench.notes[0] == f"the connection ended after 100,000 of {len(content):,} bytes; asking again in 1 s"


def test_next_call_goes_on_where_the_last_gave_up(bench: Bench) -> None:
    content = zip_bytes()
    server = bench.serve(content, cuts=[70_000, 10_000])
    entry = bench.entry(server)
    with pytest.raises(DataError, match=r"80 kB are kept; the same command goes on from there\. Fetch file\.zip"):
        bench.get(entry, tries=2)
    assert bench.names == {"file.zip.partial", "file.zip.partial.json"}
    assert bench.get(entry).path.read_bytes() == content
    assert server.sent == len(content)
    assert bench.names == {"file.zip", "file.zip.sha256"}


def test_interrupted_download_leaves_a_partial_that_goes_on(bench: Bench) -> None:
    class Impatient(Listener):
        def advance(self, done: int, total: int) -> None:
            if done > 100_000:
                raise KeyboardInterrupt

    content = zip_bytes(1_000_000)
    server = bench.serve(content)
    entry = bench.entry(server)
    with pytest.raises(Interrupted, match=r"kept\. The same command goes on from there"):
        bench.get(entry, listener=Impatient())
    kept = (bench.folder / "file.zip.partial").stat().st_size
    assert kept > 100_000
    assert not (bench.folder / "file.zip").exists()
    assert bench.get(entry).path.read_bytes() == content
    assert server.asked[-1]["range"] == f"bytes={kept}-"


def test_stopped_between_last_byte_and_rename_needs_no_server(bench: Bench) -> None:
    content = zip_bytes()
    server = bench.serve(content)
    entry = bench.entry(server)
    bench.folder.mkdir()
    (bench.folder / "file.zip.partial").write_bytes(content)
    facts = {"url": entry.url, "etag": '"one"', "modified": None, "total": len(content)}
    (bench.folder / "file.zip.partial.json").write_text(json.dumps(facts))
    assert bench.get(entry).path.read_bytes() == content
    assert not server.asked


def test_all_bytes_there_but_their_number_unknown_is_the_end(bench: Bench) -> None:
    content = zip_bytes()
    server = bench.serve(content)
    entry = bench.entry(server)
    bench.folder.mkdir()
    (bench.folder / "file.zip.partial").write_bytes(content)
    facts = {"url": entry.url, "etag": '"one"', "modified": None, "total": None}
    (bench.folder / "file.zip.partial.json").write_text(json.dumps(facts))
    assert bench.get(entry).path.read_bytes() == content
    assert server.sent == 0


@pytest.mark.parametrize("if_range", [True, False], ids=["honours If-Range", "ignores If-Range"])
def test_file_that_changed_on_the_server_is_fetched_anew(bench: Bench, if_range: bool) -> None:
    server = bench.serve(zip_bytes(seed=1), cuts=[100_000, 0], if_range=if_range)
    entry = bench.entry(server)
    with pytest.raises(DataError):
        bench.get(entry, tries=2)
    server.content, server.etag = zip_bytes(seed=2), '"two"'
    assert bench.get(entry).path.read_bytes() == server.content


def test_shorter_file_on_the_server_is_fetched_anew(bench: Bench) -> None:
    server = bench.serve(zip_bytes(), cuts=[200_000, 0], if_range=False)
    with pytest.raises(DataError):
        bench.get(bench.entry(server), tries=2)
    server.content = zip_bytes(50_000)
    assert bench.get(bench.entry(server)).path.read_bytes() == server.content


def test_date_stands_in_for_an_etag_that_is_weak(bench: Bench) -> None:
    content, date = zip_bytes(), "Wed, 21 Oct 2015 07:28:00 GMT"
    server = bench.serve(content, cuts=[100_000], etag='W/"one"', modified=date)
    assert bench.get(bench.entry(server)).path.read_bytes() == content
    assert server.asked[1]["if-range"] == date
    assert server.sent == len(content)


def test_bytes_of_an_unknown_version_are_used_only_where_a_checksum_would_tell(bench: Bench) -> None:
    content = zip_bytes()
    for name, checksum, sent in (("a", None, len(content) + 100_000), ("b", md5(content), len(content))):
        server = bench.serve(content, cuts=[100_000], etag=None)
        assert bench.get(bench.entry(server, f"{name}.zip", checksum=checksum)).path.read_bytes() == content
        assert server.sent == sent


def test_server_that_ignores_ranges_starts_again(bench: Bench) -> None:
    content = zip_bytes()
    server = bench.serve(content, cuts=[100_000], ranges=False)
    assert bench.get(bench.entry(server)).path.read_bytes() == content
    assert server.sent == len(content) + 100_000


def test_another_part_of_the_file_than_asked_for_is_not_put_together(bench: Bench) -> None:
    content = zip_bytes()
    server = bench.serve(content, cuts=[100_000], shift=7)
    assert bench.get(bench.entry(server)).path.read_bytes() == content


@pytest.mark.parametrize("damage", ["", "{}", "[1]", '{"url": 1, "etag": 2, "modified": 3, "total": "x"}'])
def test_damaged_facts_of_a_partial_start_again(bench: Bench, damage: str) -> None:
    content = zip_bytes()
    server = bench.serve(content)
    bench.folder.mkdir()
    (bench.folder / "file.zip.partial").write_bytes(b"other bytes")
    (bench.folder / "file.zip.partial.json").write_text(damage)
    assert bench.get(bench.entry(server)).path.read_bytes() == content


def test_partial_of_another_address_starts_again(bench: Bench) -> None:
    old, new = bench.serve(zip_bytes(seed=1), cuts=[100_000, 0]), bench.serve(zip_bytes(seed=2))
    with pytest.raises(DataError):
        bench.get(bench.entry(old), tries=2)
    assert bench.get(bench.entry(new)).path.read_bytes() == new.content


def test_a_download_that_gets_on_is_not_given_up(bench: Bench) -> None:
    content = zip_bytes(12 * 2**20)
    server = bench.serve(content, cuts=[2**20] * 8)
    assert bench.get(bench.entry(server), tries=2).path.read_bytes() == content
    assert server.sent == len(content)


def test_a_server_that_always_cuts_is_given_up(bench: Bench) -> None:
    content = zip_bytes(4 * 2**20)
    server = bench.serve(content, cuts=[2 * 2**20] * 100, ranges=False)
    with pytest.raises(DataError, match="4 times in a row"):
        bench.get(bench.entry(server))
    assert len(server.asked) == 4


# Wrong bytes


def test_wrong_checksum_is_an_error_and_the_copy_is_removed(bench: Bench) -> None:
    server = bench.serve(zip_bytes())
    entry = bench.entry(server, checksum=md5(b"other"))
    with pytest.raises(DataError, match=r"not the published file .md5 .* It was removed: run the command again"):
        bench.get(entry)
    assert bench.names == set()


def test_page_of_a_login_is_not_taken_for_the_data(bench: Bench) -> None:
    for name in ("file.zip", "file.npz", "file.tar.gz"):
        server = bench.serve(b"<html>please log in</html>")
        with pytest.raises(DataError, match="perhaps the page of a login"):
            bench.get(bench.entry(server, name))
        assert bench.names == set()


def test_length_that_is_too_long_is_never_taken_for_the_end(bench: Bench) -> None:
    content = zip_bytes()
    server = bench.serve(content, length=len(content) + 10, ranges=False)
    with pytest.raises(DataError, match="the connection ended after"):
        bench.get(bench.entry(server))
    assert not (bench.folder / "file.zip").exists()


def test_length_that_is_too_short_is_found_out(bench: Bench) -> None:
    content = zip_bytes()
    with pytest.raises(DataError, match=r"not a whole \.zip file"):
        bench.get(bench.entry(bench.serve(content, length=len(content) - 10)))
    assert bench.names == set()


def test_more_than_the_data_set_can_have_is_refused(bench: Bench) -> None:
    for options, told in (({}, "300 kB"), ({"says_length": False}, r"more than 4\.0 kB")):
        server = bench.serve(zip_bytes(), **options)
        with pytest.raises(DataError, match=f"the server would send {told}, far more than the data set has"):
            bench.get(bench.entry(server, about_bytes=1000))
        assert bench.names <= {"file.zip.partial.json"}


def test_full_disk_is_one_clear_line_before_anything_is_fetched(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    server = bench.serve(zip_bytes())
    with pytest.raises(DataError, match=r"300 kB more are needed and 1\.0 kB are free"):
        bench.get(bench.entry(server))
    assert not (bench.folder / "file.zip.partial").exists()


def test_out_that_is_a_file_or_not_writable_is_one_clear_line(bench: Bench, tmp_path: Path) -> None:
    server = bench.serve(zip_bytes())
    (tmp_path / "data").write_text("mine")
    with pytest.raises(UsageError, match=r"is a file\. Give a folder"):
        bench.get(bench.entry(server))
    bench.folder = Path("/proc/clearmargin")
    with pytest.raises(DataError, match="not writable"):
        bench.get(bench.entry(server))


def test_file_of_the_user_is_never_removed_or_overwritten(bench: Bench) -> None:
    server = bench.serve(zip_bytes())
    bench.folder.mkdir()
    mine = bench.folder / "file.zip"
    for content, checksum, problem in (
        (b"not a zip", None, "not a whole"),
        (zip_bytes(seed=5), md5(b"published"), "not the published file"),
    ):
        mine.write_bytes(content)
        with pytest.raises(DataError, match=problem):
            bench.get(bench.entry(server, checksum=checksum))
        assert mine.read_bytes() == content
    assert not server.asked


def test_file_that_changed_since_its_download_is_an_error(bench: Bench) -> None:
    server = bench.serve(zip_bytes())
    bench.get(bench.entry(server))
    (bench.folder / "file.zip").write_bytes(zip_bytes(seed=7))
    with pytest.raises(DataError, match="not as it was downloaded"):
        bench.get(bench.entry(server))


def test_file_put_there_by_hand_is_taken(bench: Bench) -> None:
    server = bench.serve(b"")
    bench.folder.mkdir()
    (bench.folder / "file.zip").write_bytes(zip_bytes())
    result = bench.get(bench.entry(server))
    assert (result.fetched, result.check) == (False, "not verified: no checksum is published")
    assert not server.asked


def test_two_downloads_to_one_place_do_not_mix(bench: Bench) -> None:
    content = zip_bytes()
    server = bench.serve(content)
    entry = bench.entry(server)
    refused: list[str] = []

    class Twin(Listener):
        def stage(self, name: str) -> None:
            if name == "verify":
                with pytest.raises(UsageError) as caught:
                    bench.get(entry)
                refused.append(str(caught.value))

    bench.get(entry, listener=Twin())
    assert re.search("another process is downloading it", refused[0])


# Servers that say no


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451, 501])
def test_refusal_is_told_at_once_with_what_to_do_by_hand(bench: Bench, status: int) -> None:
    server = bench.serve(zip_bytes(), answers=[status])
    with pytest.raises(DataError) as caught:
        bench.get(bench.entry(server))
    message = str(caught.value)
    assert f"the server answered {status}" in message
    assert f"Fetch file.zip by hand from https://example.org/page and put it at {bench.folder / 'file.zip'}" in message
    assert "\n" not in message
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_busy_server_is_asked_again(bench: Bench, status: int) -> None:
    content = zip_bytes()
    server = bench.serve(content, answers=[status, status])
    assert bench.get(bench.entry(server)).path.read_bytes() == content
    assert bench.waited == [1.0, 2.0]


def test_server_that_stays_busy_is_given_up(bench: Bench) -> None:
    server = bench.serve(b"", answers=[500] * 20)
    with pytest.raises(DataError, match=r"answered 500 .*, 4 times in a row"):
        bench.get(bench.entry(server))
    assert bench.waited == [1.0, 2.0, 4.0]
    assert len(server.asked) == 4


def test_server_may_say_when_to_come_back_within_reason(bench: Bench) -> None:
    server = bench.serve(zip_bytes(), answers=[503, 503], retry_after="7")
    bench.get(bench.entry(server))
    server = bench.serve(zip_bytes(), answers=[503], retry_after="999999")
    bench.get(bench.entry(server, "b.zip"))
    assert bench.waited == [7.0, 7.0, 60.0]


def test_silent_server_is_given_up(bench: Bench) -> None:
    server = bench.serve(b"", hangs=True)
    with pytest.raises(DataError, match=r"127\.0\.0\.1 does not answer, 2 times in a row"):
        bench.get(bench.entry(server), tries=2)


def test_nobody_listening_is_given_up(bench: Bench) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/file.zip"
    with pytest.raises(DataError, match="no connection to"):
        bench.get(bench.entry(bench.serve(b""), url=url), tries=2)


def test_without_network_it_says_so_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(DataError, match=r"no network, or no such server as images\.invalid\. Fetch file\.zip by hand"):
        bench.get(bench.entry(bench.serve(b""), url="http://images.invalid/file.zip"))
    assert bench.waited == []


# Redirects and the token


def test_redirect_is_followed_and_resumed(bench: Bench) -> None:
    content = zip_bytes()
    store = bench.serve(content, cuts=[100_000])
    door = bench.serve(b"", redirect=store.url("moved", host="localhost"))
    assert bench.get(bench.entry(door)).path.read_bytes() == content
    assert store.sent == len(content)
    assert len(door.asked) == 2  # a signed address ends soon: the door is asked each time


@pytest.mark.parametrize("where", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:text/plain,x", "gopher://x/"])
def test_redirect_away_from_http_is_refused(bench: Bench, where: str) -> None:
    server = bench.serve(b"", redirect=where)
    with pytest.raises(DataError, match="away from http"):
        bench.get(bench.entry(server))
    assert bench.names == set()


@pytest.mark.parametrize("where", ["http://[bad/", "http:///nowhere"])
def test_redirect_to_nonsense_is_one_clear_line(bench: Bench, where: str) -> None:
    with pytest.raises(DataError, match=r"no connection to|round in circles"):
        bench.get(bench.entry(bench.serve(b"", redirect=where)), tries=2)


def test_redirect_in_circles_is_given_up(bench: Bench) -> None:
    server = bench.serve(b"")
    server.redirect = server.url("again")
    with pytest.raises(DataError, match="round in circles"):
        bench.get(bench.entry(server))


def test_token_goes_to_its_server_and_to_no_other(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_USERNAME", "ada")
    monkeypatch.setenv("KAGGLE_KEY", "secret")
    content = zip_bytes()
    store = bench.serve(content, cuts=[100_000])
    door = bench.serve(b"", redirect=store.url("moved"))  # another port is another server
    bench.get(bench.entry(door, kaggle=True))
    assert {ask["authorization"] for ask in door.asked} == {"Basic YWRhOnNlY3JldA=="}
    assert not any("authorization" in ask for ask in store.asked)
    assert all("secret" not in note for note in bench.notes)
    same = bench.serve(content)
    same.redirect = same.url("moved")
    bench.get(bench.entry(same, "b.zip", kaggle=True))
    assert [ask.get("authorization") for ask in same.asked] == ["Basic YWRhOnNlY3JldA=="] * 2


def test_token_is_not_sent_where_none_is_asked_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", "secret")
    server = bench.serve(zip_bytes())
    bench.get(bench.entry(server))
    assert "authorization" not in server.asked[0]


def test_refused_token_is_told_from_a_missing_page(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", "secret")
    server = bench.serve(b"", answers=[403])
    with pytest.raises(DataError, match="the token is not valid, or the rules of the data set have not been") as caught:
        bench.get(bench.entry(server, kaggle=True))
    assert "secret" not in str(caught.value)


def test_without_token_nothing_is_asked_and_both_ways_are_named(bench: Bench) -> None:
    server = bench.serve(zip_bytes())
    with pytest.raises(DataError) as caught:
        bench.get(bench.entry(server, kaggle=True))
    message = str(caught.value)
    for part in ("KAGGLE_USERNAME and KAGGLE_KEY", "kaggle.json", "Fetch file.zip by hand from https://example.org"):
        assert part in message
    assert not server.asked


def test_token_is_found_where_kaggle_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    basic = "Basic YWRhOnNlY3JldA=="
    assert kaggle_authorization({}) is None
    (tmp_path / ".kaggle").mkdir()
    (tmp_path / ".kaggle" / "kaggle.json").write_text('{"username": "ada", "key": "secret"}')
    assert kaggle_authorization({}) == basic
    (tmp_path / ".kaggle" / "access_token").write_text("KGAT_x\n")
    assert kaggle_authorization({}) == "Bearer KGAT_x"
    assert kaggle_authorization({"KAGGLE_CONFIG_DIR": str(tmp_path)}) is None
    assert kaggle_authorization({"KAGGLE_USERNAME": "ada", "KAGGLE_KEY": "secret"}) == basic
    assert kaggle_authorization({"KAGGLE_API_TOKEN": "t", "KAGGLE_USERNAME": "a", "KAGGLE_KEY": "b"}) == "Bearer t"


@pytest.mark.parametrize("content", ["", "[]", '{"username": "ada"}', "\udcff", '{"username": "a\\nX: y", "key": "k"}'])
def test_broken_kaggle_json_is_one_clear_line_without_its_content(tmp_path: Path, content: str) -> None:
    file = tmp_path / "kaggle.json"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"kaggle\.json: .*https://www\.kaggle\.com/settings") as caught:
        kaggle_authorization({"KAGGLE_CONFIG_DIR": str(tmp_path)})
    assert "X: y" not in str(caught.value)


@given(st.text(min_size=1))
def test_no_token_smuggles_a_header(text: str) -> None:
    try:
        value = kaggle_authorization({"KAGGLE_API_TOKEN": text, "KAGGLE_CONFIG_DIR": "/nowhere"})
    except DataError:
        return
    assert value is None or re.fullmatch(r"Bearer [!-~]+", value)


# By hand


def test_set_without_an_address_says_what_to_do_by_hand(bench: Bench) -> None:
    with pytest.raises(DataError, match=r"NBIA Data Retriever.* and put it at .*cbis_ddsm_dicom\."):
        download("cbis_ddsm_dicom", bench.folder)
    assert not bench.folder.exists()
    (bench.folder / "cbis_ddsm_dicom" / "CBIS-DDSM").mkdir(parents=True)
    result = download("cbis_ddsm_dicom", bench.folder)
    assert (result.path, result.fetched) == (bench.folder / "cbis_ddsm_dicom", False)


def test_next_command_can_be_pasted(tmp_path: Path) -> None:
    path = tmp_path / "my data" / "a.zip"
    assert Downloaded(path, fetched=True, check="").next_command == f"clearmargin audit '{path}'"


# Archives


def test_tar_is_unpacked_beside_itself_and_once(bench: Bench) -> None:
    members = {"Info.txt": b"mdb001 G CIRC B 535 425 197\n", "./deep/er/mdb001.pgm": b"P5 1 1 255\n\0", "empty": b""}
    server = bench.serve(tar_bytes(members))
    entry = bench.entry(server, "set.tar.gz")
    result = bench.get(entry)
    assert (result.path, result.fetched) == (bench.folder / "set", True)
    for name, content in members.items():
        assert (result.path / name).read_bytes() == content
    assert bench.names == {"set", "set.tar.gz", "set.tar.gz.sha256"}
    assert bench.get(entry) == Downloaded(
        result.path, fetched=False, check="unchanged since it was downloaded; not verified: no checksum is published"
    )
    (bench.folder / "set.tar.gz").unlink()
    assert bench.get(entry) == Downloaded(result.path, fetched=False, check="unpacked before")
    assert len(server.asked) == 1


def test_folder_of_the_user_is_not_taken_for_an_unpacked_set(bench: Bench) -> None:
    (bench.folder / "set").mkdir(parents=True)
    with pytest.raises(DataError, match=r"was not unpacked from set\.tar\.gz by this command"):
        bench.get(bench.entry(bench.serve(b""), "set.tar.gz"))


def test_modes_of_an_archive_are_not_taken_over(tmp_path: Path) -> None:
    member = tarfile.TarInfo("run.sh")
    member.mode, member.uid, member.mtime = 0o6777, 0, 0
    unpack_tar(_tar(tmp_path, [member]), tmp_path / "out")
    assert not (tmp_path / "out" / "run.sh").stat().st_mode & 0o7111


class Hostile(NamedTuple):
    """One member of an archive that should not be unpacked, and why."""

    name: str
    kind: bytes
    why: str
    link: str = ""


HOSTILE = [
    Hostile("../out.txt", tarfile.REGTYPE, "outside the folder"),
    Hostile("a/../../out.txt", tarfile.REGTYPE, "outside the folder"),
    Hostile("a/../b.txt", tarfile.REGTYPE, "outside the folder"),
    Hostile("/tmp/out.txt", tarfile.REGTYPE, "outside the folder"),
    Hostile("//tmp/out.txt", tarfile.REGTYPE, "outside the folder"),
    Hostile("..\\out.txt", tarfile.REGTYPE, "outside the folder"),
    Hostile("../out", tarfile.DIRTYPE, "outside the folder"),
    Hostile("link", tarfile.SYMTYPE, "a link", "/etc/passwd"),
    Hostile("link", tarfile.SYMTYPE, "a link", "good.txt"),
    Hostile("link", tarfile.LNKTYPE, "a link", "good.txt"),
    Hostile("device", tarfile.CHRTYPE, "a device"),
    Hostile("device", tarfile.BLKTYPE, "a device"),
    Hostile("pipe", tarfile.FIFOTYPE, "a device"),
    Hostile("good.txt", tarfile.REGTYPE, "in it twice"),
    Hostile(".", tarfile.REGTYPE, "in it twice"),
]


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: f"{case.name} {case.why} {case.link}")
def test_hostile_member_is_refused_and_nothing_is_left(tmp_path: Path, case: Hostile) -> None:
    member = tarfile.TarInfo(case.name)
    member.type, member.linkname = case.kind, case.link
    place = tmp_path / "place"
    place.mkdir()
    archive = _tar(tmp_path, [tarfile.TarInfo("good.txt"), member])
    with pytest.raises(DataError, match=f"not unpacked: .*{case.why}"):
        unpack_tar(archive, place / "out")
    assert list(place.iterdir()) == []
    assert not (tmp_path / "out.txt").exists()


def test_archive_with_too_many_files_is_refused(tmp_path: Path) -> None:
    archive = _tar(tmp_path, [tarfile.TarInfo(f"{number}.txt") for number in range(20)])
    assert unpack_tar(archive, tmp_path / "all", limits=UnpackLimits(max_files=20)) == 20
    with pytest.raises(DataError, match="more than 19 entries"):
        unpack_tar(archive, tmp_path / "out", limits=UnpackLimits(max_files=19))
    assert not (tmp_path / "out").exists()


def test_archive_that_unpacks_to_too_much_is_refused_before_it_is_written(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.tar.gz"
    bomb.write_bytes(tar_bytes({"zeros": bytes(20 * 2**20)}))
    assert bomb.stat().st_size < 50_000
    with pytest.raises(DataError, match="unpacks to more than"):
        unpack_tar(bomb, tmp_path / "out", limits=UnpackLimits(spare_bytes=2**20))
    assert {path.name for path in tmp_path.iterdir()} == {"bomb.tar.gz"}


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_enormous_header_is_refused_before_it_is_read(tmp_path: Path, kind: bytes) -> None:
    header = tarfile.TarInfo("pax")
    header.type, header.size = kind, 8 * 2**30
    archive = tmp_path / "big.tar.gz"
    with gzip.open(archive, "wb") as file:
        file.write(header.tobuf(tarfile.USTAR_FORMAT if header.size < 8**11 else tarfile.GNU_FORMAT) + bytes(2**20))
    with pytest.raises(DataError, match="an enormous header"):
        unpack_tar(archive, tmp_path / "out")


def test_sparse_member_is_refused(tmp_path: Path) -> None:
    pax = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s", "GNU.sparse.realsize": str(2**40)}
    member = tarfile.TarInfo("s")
    member.pax_headers = pax
    content = b"1\n0\n0\n".ljust(512, b"\0")
    member.size = len(content)
    archive = tmp_path / "sparse.tar.gz"
    with tarfile.open(archive, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member, io.BytesIO(content))
    with pytest.raises(DataError, match="sparse, not a plain file"):
        unpack_tar(archive, tmp_path / "out")


@given(st.data())
def test_damaged_archive_is_one_clear_line_or_unpacks_to_the_same(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    content = bytearray(tar_bytes({"a/b.pgm": b"P5 1 1 255\n\0" * 50, "c.txt": b"text"}))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(10, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    archive = folder / "a.tar.gz"
    archive.write_bytes(content)
    with pytest.raises(DataError):
        unpack_tar(archive, folder / "out")
    assert {path.name for path in folder.iterdir()} == {"a.tar.gz"}


def test_empty_archive_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no file"):
        unpack_tar(_tar(tmp_path, []), tmp_path / "out")


def test_what_a_killed_process_left_is_not_mixed_in(tmp_path: Path) -> None:
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "stale.txt").write_text("old")
    assert unpack_tar(_tar(tmp_path, [tarfile.TarInfo("new.txt")]), tmp_path / "out") == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"new.txt"}


def _tar(folder: Path, members: list[tarfile.TarInfo]) -> Path:
    archive = folder / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for member in members:
            tar.addfile(member)
    return archive
