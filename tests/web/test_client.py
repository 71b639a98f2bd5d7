from __future__ import annotations

import os
import re
import resource
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
from tests.web.conftest import MakeClient, png
from tests.web.jobs.real_server import RealServer, real_server

import clearmargin
from clearmargin.errors import ClearmarginError, DataError, Interrupted, ServerError, UsageError
from clearmargin.predict.predictor import load_bundle
from clearmargin.types import Listener
from clearmargin.web.client import Client
from clearmargin.web.limits import ServeLimits
from clearmargin.web.sending import FileOnDisk

Answer = Callable[[httpx.Request], httpx.Response]
URL = "http://127.0.0.1:8000"


def of(client: httpx.Client, token: str | None = None) -> Client:
    """Our client of the application behind an ordinary one."""
    return Client(URL, token, transport=client._transport)


def fake(*answers: Answer | httpx.Response) -> tuple[Client, list[httpx.Request]]:
    """A client whose server gives these answers one after the other."""
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        request.read()
        asked.append(request)
        found = answers[len(asked) - 1]
        return found if isinstance(found, httpx.Response) else found(request)

    return Client(URL, transport=httpx.MockTransport(answer)), asked


def lost(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


def error(status: int, message: str, **headers: str) -> httpx.Response:
    body = {"status": status, "code": "c", "message": message, "request_id": "r", "details": []}
    return httpx.Response(status, json={"error": body}, headers=headers)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client waits, without waiting."""
    pauses: list[float] = []
    monkeypatch.setattr("clearmargin.web.client.time.sleep", pauses.append)
    return pauses


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    names = ["8863_idx5_x1_y1_class0.png", 'quo"te.png', "new\nline.png", "ümlaut.png", "bad.png"]
    paths = [tmp_path / name for name in names]
    for number, path in enumerate(paths):
        path.write_bytes(png(number) if path.name != "bad.png" else b"no image")
    return paths


def test_table_is_that_of_a_predictor_on_this_machine(client: httpx.Client, bundle: Path, images: list[Path]) -> None:
    mine = load_bundle(bundle).predict(images)
    with of(client) as served:
        pd.testing.assert_frame_equal(served.predict(images), mine)
        pd.testing.assert_frame_equal(served.submit(images).wait().results(), mine)
        one = served.predict(str(images[0]), prevalence=0.01)
        assert [*one.columns] == [*mine.columns, "at_prevalence"]
        assert [*served.submit(images[:1], prevalence=0.01).wait().results().columns] == [*one.columns]


def test_members_of_zips_are_named_below_the_path_that_was_given(client: httpx.Client, tmp_path: Path) -> None:
    paths = [tmp_path / 'a".zip', tmp_path / "p.png", tmp_path / "b.zip"]
    for path in (paths[0], paths[2]):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("in/1.png", png(1))
            archive.writestr("2.png", png(2))
    paths[1].write_bytes(png(3))
    rows = of(client).predict(paths)
    assert rows["path"].tolist() == [
        f"{paths[0]}/2.png", f"{paths[0]}/in/1.png", str(paths[1]), f"{paths[2]}/2.png", f"{paths[2]}/in/1.png"
    ]  # fmt: skip


def test_what_is_said_of_models_and_the_server_arrives(client: httpx.Client) -> None:
    served = of(client)
    assert served.health() == {"status": "ok"}
    assert served.version()["clearmargin"] == clearmargin.__version__
    (model,) = served.models()
    assert served.card(model["name"]).startswith("#")


def test_explanations_name_images_as_they_were_given(client: httpx.Client, images: list[Path]) -> None:
    explained = of(client).explain(images[:2], method="grad_cam")
    assert [each["path"] for each in explained] == [str(path) for path in images[:2]]
    assert all(each["maps"][0]["layer"].startswith("data:image/png") for each in explained)


def test_token_is_sent_and_its_lack_is_told(make_client: MakeClient, images: list[Path]) -> None:
    token = "0123456789abcdef"
    client = make_client(token=token)
    assert len(of(client, token).predict(images[:1])) == 1
    with pytest.raises(UsageError, match="a token is needed"):
        of(client).models()
    assert of(client).health() == {"status": "ok"}


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["missing.png"], r"missing\.png: no such file\."),
        (["."], r"\.: is a folder or a device"),
        (["bad.png"], r"bad\.png: .*not a PNG"),
    ],
)
def test_files_that_cannot_be_used_are_named(
    client: httpx.Client, images: list[Path], monkeypatch: pytest.MonkeyPatch, paths: list[str], message: str
) -> None:
    monkeypatch.chdir(images[0].parent)
    with pytest.raises(DataError, match=message):
        of(client).predict(paths)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, UsageError), (401, UsageError), (404, UsageError), (409, ServerError), (413, DataError), (415, DataError),
     (422, DataError), (500, ServerError), (503, ServerError)],
)  # fmt: skip
def test_error_has_the_line_of_the_server(status: int, kind: type[ClearmarginError]) -> None:
    client, _ = fake(error(status, "what, where, how to fix it."))
    with pytest.raises(kind, match=r"^what, where, how to fix it\.$"):
        client.version()


def test_server_of_another_kind_is_told_as_such() -> None:
    client, _ = fake(httpx.Response(502, text="<html>"))
    with pytest.raises(ServerError, match=r"127\.0\.0\.1:8000: answers 502, and not as clearmargin serve does"):
        client.version()
    for url in ("127.0.0.1:8000", "ftp://host", "http://", ""):
        with pytest.raises(UsageError, match="is no address of a server"):
            Client(url)


def test_busy_server_is_asked_again_when_it_says_with_the_same_files(slept: list[float], images: list[Path]) -> None:
    done = httpx.Response(200, json={"predictions": [{"path": str(images[0]), "at_prevalence": None}]})
    client, asked = fake(error(429, "busy", **{"Retry-After": "7"}), error(429, "busy"), done)
    assert client.predict(images[0])["path"].tolist() == [str(images[0])]
    assert slept == [7, 1]
    bodies = [request.content.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0] for request in asked]
    assert bodies == [images[0].read_bytes()] * 3
    client, asked = fake(*[error(429, "too many")] * 9)
    with pytest.raises(ServerError, match="too many"):
        client.predict(images[0])
    assert len(asked) == 6


def test_lost_connection_is_tried_again_only_where_that_changes_nothing(slept: list[float], images: list[Path]) -> None:
    client, asked = fake(lost, lost, httpx.Response(200, json={"status": "ok"}))
    assert client.health() == {"status": "ok"}
    assert len(asked) == 3
    for send in (lambda client: client.predict(images[0]), lambda client: client.submit(images[0])):
        client, asked = fake(lost)
        with pytest.raises(ServerError, match=r"127\.0\.0\.1:8000: cannot be reached \(refused\)"):
            send(client)
        assert len(asked) == 1
    client, asked = fake(*[lost] * 9)
    with pytest.raises(ServerError, match="Is the server running"):
        client.version()
    assert len(asked) == 6
    assert slept == sorted(slept[:2]) + sorted(slept[2:])


def events(*each: tuple[int, str, dict[str, Any]]) -> httpx.Response:
    text = ": hello\n\n" + "".join(f"id: {n}\nevent: {name}\ndata: {data}\n\n" for n, name, data in each)
    return httpx.Response(200, text=text.replace("'", '"'))


def facts(state: str, done: int = 0) -> dict[str, Any]:
    return {"id": "j", "state": state, "done": done, "total": 9}


def test_waiting_outlives_lost_connections_and_goes_on_where_it_was(slept: list[float]) -> None:
    client, asked = fake(
        httpx.Response(200, json=facts("queued")),
        events((3, "progress", facts("running", 2)), (5, "progress", facts("running", 4))),
        lost,
        lost,
        events((8, "progress", facts("running", 9)), (9, "end", facts("done", 9))),
    )
    heard: list[int] = []

    class Hearing(Listener):
        def advance(self, done: int, total: int) -> None:
            heard.append(done)

    job = client.job("j").wait(Hearing())
    assert job.state == "done"
    assert heard == [2, 4, 9, 9]
    assert [request.headers.get("Last-Event-ID") for request in asked[1:]] == [None, "5", "5", "5"]
    client, asked = fake(httpx.Response(200, json=facts("queued")), *[lost] * 20)
    with pytest.raises(ServerError, match="cannot be reached"):
        client.job("j").wait()
    assert len(asked) < 10


def test_job_that_does_not_end_well_is_an_error(slept: list[float]) -> None:
    failed = facts("failed") | {"error": "the model m is not served any more."}
    client, _ = fake(httpx.Response(200, json=facts("queued")), events((2, "end", failed)))
    with pytest.raises(DataError, match="the job failed: the model m is not served any more"):
        client.job("j").wait()
    client, _ = fake(httpx.Response(200, json=facts("queued")), events((2, "end", {"state": "cancelled"})))
    with pytest.raises(Interrupted, match="the job was cancelled"):
        client.job("j").wait()


def test_job_can_be_looked_at_and_cancelled(client: httpx.Client, images: list[Path]) -> None:
    served = of(client)
    job = served.submit(images).wait()
    assert repr(job) == f"<Job {job.id}: done, 5 of 5>"
    again = served.job(job.id)
    assert again.refresh().state == "done"
    job.cancel()
    with pytest.raises(UsageError, match="there is no such job"):
        again.results()


def test_limit_of_the_server_is_told(make_client: MakeClient, images: list[Path]) -> None:
    client = make_client(limits=ServeLimits(max_files=2))
    with pytest.raises(DataError, match="more than 2 files; send fewer at a time"):
        of(client).submit(images)


def test_file_is_open_only_while_it_is_read(images: list[Path]) -> None:
    content = images[0].read_bytes()
    open_before = _n_open()
    files = [FileOnDisk(str(images[0])) for _ in range(50)]
    assert files[0].read(10) == content[:10]
    assert files[0].seek(0, os.SEEK_END) == len(content)
    assert files[0].read(10) == b""
    assert files[0].seek(5) == 5
    assert files[0].read() + files[0].read() == content[5:]
    assert _n_open() == open_before


def _n_open() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    with real_server(bundle, tmp_path_factory.mktemp("state")) as started:
        yield started


def test_more_files_than_may_be_open_are_sent(server: RealServer, tmp_path: Path, bundle: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(200)]
    for number, path in enumerate(paths):
        path.write_bytes(png(number))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, _n_open() + 50), hard))
    try:
        with Client(server.url) as client:
            rows = client.submit(paths).wait().results()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    pd.testing.assert_frame_equal(rows, load_bundle(bundle).predict(paths))


def test_example_of_the_document_runs(
    server: RealServer, images: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = Path(__file__).resolve().parents[2] / "docs" / "serve.md"
    (code,) = re.findall(r"```python\n(.*?)```", document.read_text(), flags=re.DOTALL)
    folder = images[0].parent / "scans"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(png(number))
    monkeypatch.chdir(folder.parent)
    exec(code.replace(URL, server.url), values := {})
    assert values["table"]["path"].tolist() == values["rows"]["path"].tolist()
    assert "3 of 3" in capsys.readouterr().out
