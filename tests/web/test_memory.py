"""Requests leave nothing behind: no memory, no file, no open descriptor, no thread."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.web.conftest import files, png
from tests.web.in_process import InProcess

from clearmargin.web.metrics import Metrics

KINDS = [png(1), png(2, 40), png(3)[:700], b"words", b""]
_MB = 2**20


def handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def resident() -> int:
    gc.collect()
    (line,) = [line for line in Metrics().text().decode().splitlines() if line.startswith("process_resident")]
    return int(float(line.split()[1]))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts what Linux shows of a process")
def test_two_thousand_requests_leave_nothing(client: InProcess, private: Path) -> None:
    def ask(number: int) -> int:
        sent = files(*((f"{number}-{place}.png", KINDS[(number + place) % len(KINDS)]) for place in range(number % 3)))
        return client.post("/api/v1/predict", files=sent or files(("a.zip", b"PK\x03\x04"))).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(400))) <= {200, 415, 422}
        before, opened, threads = resident(), handles(), threading.active_count()
        assert set(pool.map(ask, range(2_000))) == {200, 415, 422}
        assert resident() - before < 24 * _MB
        assert handles() <= opened + 8
        assert threading.active_count() <= threads + 8
    assert list(private.iterdir()) == []
    assert client.serving.slots == 0
