"""Who may ask, how much at once, and what every answer carries."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.web.conftest import MakeClient, files, png
from tests.web.in_process import InProcess

from clearmargin.web.limits import ServeLimits
from clearmargin.web.served import Served

PREDICT, MODELS, HEALTH, READY = (f"/api/v1/{name}" for name in ("predict", "models", "health", "ready"))
TOKEN = "a-token-of-sixteen-or-more"
ONE = files(("a.png", png()))


def code(answer: Any) -> str:
    return str(answer.json()["error"]["code"])


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "169.254.169.254", "", "a b", "[::2]:80"])
def test_another_name_in_host_is_refused(client: InProcess, host: str) -> None:
    answer = client.get(HEALTH, headers={"Host": host})
    assert (answer.status_code, code(answer)) == (400, "bad_request")


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:9", "[::1]:8000"])
def test_names_of_this_machine_are_answered(client: InProcess, host: str) -> None:
    assert client.get(HEALTH, headers={"Host": host}).status_code == 200


def test_two_hosts_are_refused(client: InProcess) -> None:
    answer = client.get(HEALTH, headers=[("Host", "127.0.0.1:8000"), ("Host", "127.0.0.1:8000")])
    assert answer.status_code == 400


def test_any_host_is_answered_where_a_token_is_the_guard(make_client: MakeClient) -> None:
    client = make_client(token=TOKEN, hosts=None)
    assert client.get(HEALTH, headers={"Host": "ward7.hospital.example"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "http://localhost:8000"},
        {"Origin": "file://"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
        {"Sec-Fetch-Site": "none", "Origin": "http://evil.example"},
    ],
)
def test_a_page_of_another_site_is_refused(client: InProcess, headers: dict[str, str]) -> None:
    for answer in (client.post(PREDICT, files=ONE, headers=headers), client.get(MODELS, headers=headers)):
        assert (answer.status_code, code(answer)) == (403, "cross_site")
        assert "access-control-allow-origin" not in answer.headers
    assert client.options(PREDICT, headers=headers).status_code == 403


@pytest.mark.parametrize(
    "headers", [{}, {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}]
)
def test_our_own_page_and_programs_are_answered(client: InProcess, headers: dict[str, str]) -> None:
    assert client.post(PREDICT, files=ONE, headers=headers).status_code == 200


def test_a_link_of_another_site_may_lead_to_the_page_and_nowhere_else(client: InProcess) -> None:
    follow = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert client.get("/nothing", headers=follow).status_code == 404
    assert client.get("/nothing", headers=follow | {"Sec-Fetch-Dest": "iframe"}).status_code == 403
    assert client.post("/nothing", headers=follow).status_code == 403


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN, "Bearer é"]
)
def test_without_the_token_nothing_is_told(make_client: MakeClient, given: str | None) -> None:
    client = make_client(token=TOKEN)
    headers = {} if given is None else {"Authorization": given.encode("latin-1")}
    for path in (MODELS, "/api/v1/openapi.json", "/api/v1/metrics", "/api/v1/nothing", "/api/v1/health/"):
        answer = client.get(path, headers=headers)
        assert (answer.status_code, code(answer)) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert client.post(PREDICT, files=ONE, headers=headers).status_code == 401


def test_with_the_token_all_is_told_and_health_without(make_client: MakeClient) -> None:
    client = make_client(token=TOKEN)
    for kind in ("Bearer", "bearer"):
        assert client.post(PREDICT, files=ONE, headers={"Authorization": f"{kind} {TOKEN}"}).status_code == 200
    assert client.get(HEALTH).status_code == client.get(READY).status_code == 200


def test_a_token_shows_in_no_repr(make_client: MakeClient) -> None:
    assert TOKEN not in repr(make_client(token=TOKEN).serving)


def test_every_answer_has_the_headers_and_none_a_cookie(client: InProcess) -> None:
    answers = [client.get(path) for path in (HEALTH, MODELS, "/nothing", "/api/v1/examples/benign-1.png")]
    answers += [client.post(PREDICT, files=ONE), client.post(PREDICT), client.get(HEALTH, headers={"Host": "x"})]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        for name in ("opener", "embedder", "resource"):
            assert f"cross-origin-{name}-policy" in answer.headers
        assert "set-cookie" not in answer.headers
        assert "server" not in answer.headers
    assert client.get(MODELS).headers["cache-control"] == "no-store"
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)


def test_the_request_id_is_ours_not_the_clients(client: InProcess) -> None:
    answer = client.get("/api/v1/nothing", headers={"X-Request-ID": "Jane Doe"})
    assert answer.headers["x-request-id"] == answer.json()["error"]["request_id"] != "Jane Doe"


def test_a_promise_of_too_many_bytes_is_refused_before_they_come(client: InProcess) -> None:
    exchange = client.send_parts(PREDICT, ["nothing"], transfer_encoding="x", content_length=str(1 << 40), expect="y")
    assert exchange.status == 413
    assert exchange.headers["connection"] == "close"


def test_a_length_that_is_no_number_is_refused(client: InProcess) -> None:
    assert client.send_parts(PREDICT, ["nothing"], content_length="-1", expect="y").status == 400


def test_while_it_stops_nothing_new_is_taken(client: InProcess) -> None:
    client.serving.stopping.set()
    for answer in (client.post(PREDICT, files=ONE), client.get(MODELS), client.get(READY)):
        assert (answer.status_code, code(answer)) == (503, "stopping")
    assert client.get(HEALTH).status_code == 200


def test_too_many_at_once_are_told_to_come_again(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client, go, here = make_client(limits=ServeLimits(concurrency=3)), threading.Event(), threading.Semaphore(0)
    decide = Served.decide

    def slowly(self: Served, *arguments: Any, **options: Any) -> Any:
        here.release()
        go.wait()
        return decide(self, *arguments, **options)

    monkeypatch.setattr(Served, "decide", slowly)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(client.post, PREDICT, files=ONE) for _ in range(3)]
        for _ in range(3):
            here.acquire()
        answer = client.post(PREDICT, files=ONE)
        assert (answer.status_code, code(answer)) == (429, "busy")
        assert int(answer.headers["retry-after"]) >= 1
        assert client.get(HEALTH).status_code == 200
        go.set()
        assert [each.result().status_code for each in waiting] == [200] * 3
    assert client.post(PREDICT, files=ONE).status_code == 200


def test_a_bug_is_told_without_words_and_logged_without_names(
    client: InProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def break_down(*_arguments: Any, **_options: Any) -> None:
        raise RuntimeError("/home/ward7/DoeJane.png is broken")

    monkeypatch.setattr(Served, "decide", break_down)
    with caplog.at_level(logging.DEBUG):
        answer = client.post(PREDICT, files=files(("DoeJane.png", png())))
    assert (answer.status_code, code(answer)) == (500, "internal")
    assert answer.json()["error"]["details"] == []
    assert answer.json()["error"]["request_id"] in caplog.text
    assert "RuntimeError in break_down" in caplog.text
    assert "Doe" not in caplog.text + answer.text
    monkeypatch.undo()
    assert client.post(PREDICT, files=ONE).status_code == 200


def test_nothing_that_is_sent_is_logged(client: InProcess, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        client.post(PREDICT, files=files(("DoeJane.png", png()), ("DoeJohn.png", b"x")))
        client.post(PREDICT, files=files(("DoeJane.png", b"x")))
        client.post(PREDICT, files=files(("DoeJane.zip", b"PK\x03\x04")), params={"model": "DoeJane"})
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("http")]  # the client's own
    assert not any("Doe" in message for message in ours)


def test_a_websocket_is_closed(client: InProcess) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    client.run(client.app({"type": "websocket", "path": "/", "headers": []}, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]
