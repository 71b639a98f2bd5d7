from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.web.conftest import MakeClient, files, png

from clearmargin.cli import main
from clearmargin.web.jobs.worker import Worker
from clearmargin.web.limits import ServeLimits


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs wait."""
    monkeypatch.setattr(Worker, "start", lambda self: None)


def submit(client: httpx.Client, n: int = 3, query: str = "") -> dict[str, Any]:
    answer = client.post(f"/api/v1/jobs{query}", files=files(*((f"P{i}.png", png(i)) for i in range(n))))
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == answer.json()["links"]["self"]
    facts: dict[str, Any] = answer.json()
    return facts


def wait(client: httpx.Client, job: dict[str, Any]) -> None:
    heard = client.get(job["links"]["events"])
    assert heard.headers["content-type"].startswith("text/event-stream")
    assert heard.headers["cache-control"] == "no-store"
    assert heard.text.rstrip().split("\n\n")[-1].splitlines()[1] == "event: end"


def test_results_are_what_predict_answers(client: httpx.Client) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("in/b.png", png(3))
        archive.writestr("a.png", png(4))
    sent = files(("x.png", png(1)), ("z.zip", packed.getvalue()), ("bad.png", b"no image"), ("e.zip", b"PK\x03\x04x"))
    query = {"prevalence": "0.01", "context": "false"}
    expected = client.post("/api/v1/predict", files=sent, params=query).json()
    job = client.post("/api/v1/jobs", files=sent, params=query).json()
    assert job["total"] == 5
    wait(client, job)
    assert client.get(job["links"]["self"]).json()["state"] == "done"
    results = client.get(job["links"]["results"])
    assert results.json() == expected
    lines = client.get(job["links"]["results"], params={"format": "jsonl"}).text.splitlines()
    assert [json.loads(line) for line in lines] == expected["predictions"]
    head = client.get(job["links"]["results"], params={"format": "csv"}).text.splitlines()[0]
    assert head == "path,patient_id,slide_id,x,y,probability,decision,reason,at_prevalence"


def test_csv_is_byte_for_byte_that_of_the_command(
    client: httpx.Client,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images = {"8863_idx5_x1_y1_class0.png": png(1), "a,b.png": png(2), "bad.png": b"no image", "é.png": png(3)}
    (tmp_path / "images").mkdir()
    for name, content in images.items():
        (tmp_path / "images" / name).write_bytes(content)
    monkeypatch.chdir(tmp_path / "images")
    assert main(["predict", str(bundle), *images, "--format", "csv"]) == 0
    job = client.post("/api/v1/jobs", files=files(*images.items())).json()
    wait(client, job)
    assert client.get(job["links"]["results"], params={"format": "csv"}).text == capsys.readouterr().out


def test_many_jobs_are_refused_and_leave_nothing(make_client: MakeClient, idle: None, tmp_path: Path) -> None:
    client = make_client(limits=ServeLimits(max_jobs=2))
    first, _ = submit(client), submit(client)
    refused = client.post("/api/v1/jobs", files=files(("a.png", png())))
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "busy")
    assert int(refused.headers["retry-after"]) > 0
    assert len(list(tmp_path.glob("state0/files/*"))) == 2
    assert client.delete(first["links"]["self"]).status_code == 204
    submit(client)


@pytest.mark.parametrize(
    ("send", "status"),
    [
        (lambda client: client.post("/api/v1/jobs", content=b"x"), 415),
        (lambda client: client.post("/api/v1/jobs", files=[("other", ("a.png", b"x"))]), 422),
        (lambda client: client.post("/api/v1/jobs?similar=51", files=files(("a.png", b"x"))), 422),
        (lambda client: client.post("/api/v1/jobs?similar=5", files=files(("a.png", b"x"))), 422),
        (lambda client: client.post("/api/v1/jobs?prevalence=2", files=files(("a.png", b"x"))), 422),
        (lambda client: client.post("/api/v1/jobs?model=none", files=files(("a.png", b"x"))), 404),
    ],
)
def test_job_that_cannot_be_is_an_error_and_leaves_nothing(
    client: httpx.Client, tmp_path: Path, send: Callable[[httpx.Client], httpx.Response], status: int
) -> None:
    answer = send(client)
    assert answer.status_code == status
    assert answer.json()["error"]["status"] == status
    assert not list(tmp_path.glob("state0/files/*"))


@pytest.mark.parametrize("path", ["", "/events", "/results"])
@pytest.mark.parametrize("job_id", ["none", "..%2F..%2Fetc", "x" * 5000])
def test_unknown_job_is_not_found(client: httpx.Client, path: str, job_id: str) -> None:
    answer = client.get(f"/api/v1/jobs/{job_id}{path}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert client.delete(f"/api/v1/jobs/{job_id}").status_code in (404, 405)


def test_results_wait_for_the_end(idle: None, client: httpx.Client) -> None:
    job = submit(client)
    early = client.get(job["links"]["results"])
    assert (early.status_code, early.json()["error"]["code"]) == (409, "not_ready")
    assert "0 of 3 images" in early.json()["error"]["message"]
    client.delete(job["links"]["self"])
    assert client.get(job["links"]["self"]).json()["state"] == "cancelled"
    assert "was cancelled" in client.get(job["links"]["results"]).json()["error"]["message"]
    wait(client, job)
    assert client.delete(job["links"]["self"]).status_code == 204
    assert client.get(job["links"]["self"]).status_code == 404


def test_job_of_images_that_cannot_be_read_says_so_row_by_row(client: httpx.Client) -> None:
    job = client.post("/api/v1/jobs", files=files(("a.png", b"x"), ("b.png", b""))).json()
    wait(client, job)
    rows = client.get(job["links"]["results"]).json()["predictions"]
    assert [row["decision"] for row in rows] == ["refused", "refused"]
    assert all(row["reason"] for row in rows)


def test_full_disk_is_told_as_such(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device", "/secret/folder")

    monkeypatch.setattr("clearmargin.web.jobs.store._reach_disk", full)
    answer = client.post("/api/v1/jobs", files=files(("a.png", png())))
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "no_space")
    assert "secret" not in answer.text


def test_images_of_jobs_are_counted_with_the_others(client: httpx.Client) -> None:
    wait(client, submit(client))
    counted = client.get("/api/v1/metrics").text
    total = sum(
        float(line.split()[-1]) for line in counted.splitlines() if line.startswith("clearmargin_images_total{")
    )
    assert total == 3
