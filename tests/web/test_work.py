"""Work that takes too long, or that nobody waits for, ends without leaving anything behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.web.conftest import MakeClient, files, png
from tests.web.in_process import InProcess

from clearmargin.errors import Interrupted
from clearmargin.web.limits import ServeLimits
from clearmargin.web.served import Served
from clearmargin.web.work import check_cancelled

PREDICT = "/api/v1/predict"
FORM = "multipart/form-data; boundary=b"
BODY = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + png() + b"\r\n--b--\r\n"


def until(true: Callable[[], bool]) -> None:
    """Waits for it, and fails where it does not come."""
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Decisions hear nothing until this is set, and look up then."""
    go = threading.Event()

    def decide(_self: Served, *_arguments: Any, cancelled: threading.Event, **_options: Any) -> Any:
        go.wait()
        check_cancelled(cancelled)
        yield from ()

    monkeypatch.setattr(Served, "decide", decide)
    return go


def test_work_that_takes_too_long_is_a_timeout_and_its_place_comes_back(
    make_client: MakeClient, stuck: threading.Event, private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(limits=ServeLimits(seconds=0.1, concurrency=2))
    for _ in range(2):
        answer = client.post(PREDICT, files=files(("a.png", png())))
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "timeout")
    assert list(private.iterdir()) == []
    assert client.serving.slots == 2
    assert client.post(PREDICT, files=files(("a.png", png()))).status_code == 429
    stuck.set()
    until(lambda: client.serving.slots == 0)
    monkeypatch.undo()
    until(lambda: client.post(PREDICT, files=files(("a.png", png()))).status_code == 200)


def test_work_ends_when_its_client_leaves(client: InProcess, stuck: threading.Event, private: Path) -> None:
    exchange = client.send_parts(PREDICT, [BODY, "disconnect"], content_type=FORM)
    assert exchange.status is None
    assert list(private.iterdir()) == []
    stuck.set()
    until(lambda: client.serving.slots == 0)


def test_the_number_of_threads_is_bounded(make_client: MakeClient) -> None:
    client = make_client(limits=ServeLimits(concurrency=4))
    for seed in range(30):
        client.post(PREDICT, files=files(("a.png", png(seed))))
    assert sum(thread.name.startswith("request") for thread in threading.enumerate()) <= 4


def test_cancelled_rows_end(client: InProcess, tmp_path: Path) -> None:
    from clearmargin.web.uploads import Upload

    uploads = []
    for number in range(5):
        path = tmp_path / str(number)
        path.write_bytes(png(number))
        uploads.append(Upload(f"{number}.png", path))
    cancelled, decided = threading.Event(), 0
    rows = client.serving.find(None).decide(uploads, cancelled=cancelled)
    with pytest.raises(Interrupted):
        for decided, _ in enumerate(rows, start=1):
            if decided == 3:
                cancelled.set()
    assert decided == 3
