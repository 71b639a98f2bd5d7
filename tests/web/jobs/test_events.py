from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.web.jobs.test_store import rows, submit

from clearmargin.web.jobs.events import Changes, tell_changes
from clearmargin.web.jobs.schema import JobFacts
from clearmargin.web.jobs.store import JobStore, UnknownJob


class Listened:
    """A store, and streams of its jobs."""

    def __init__(self, store: JobStore) -> None:
        self.store, self.changes, self.stopping = store, Changes(), threading.Event()
        store.heard = self.changes.tell

    def find(self, job_id: str) -> JobFacts | None:
        try:
            return self.store.job(job_id)
        except UnknownJob:
            return None

    def stream(self, job_id: str, *, last: int | None = None, comment_s: float = 600) -> AsyncIterator[bytes]:
        return tell_changes(job_id, self.find, self.changes, self.stopping, last=last, comment_s=comment_s)


@pytest.fixture
def listened(tmp_path: Path) -> Iterator[Listened]:
    store = JobStore(tmp_path / "state")
    yield Listened(store)
    store.close()


def number_of(event: bytes) -> int:
    return int(event.split(b"\n")[0].removeprefix(b"id: "))


def test_events_tell_each_change_in_order_and_the_end_last(listened: Listened) -> None:
    store, job = listened.store, submit(listened.store)

    async def listen() -> list[bytes]:
        stream, heard = listened.stream(job.id), []
        heard.append(await anext(stream))
        store.start_next()
        heard.append(await anext(stream))
        store.add(job.id, 0, rows(0, 2))
        heard.append(await anext(stream))
        store.add(job.id, 2, rows(2, 1))
        store.finish(job.id)
        return heard + [event async for event in stream]

    heard = asyncio.run(listen())
    assert [event.split(b"data: ")[1] for event in heard[:3]] == [
        b'{"done": 0, "total": 3, "state": "queued"}\n\n',
        b'{"done": 0, "total": 3, "state": "running"}\n\n',
        b'{"done": 2, "total": 3, "state": "running"}\n\n',
    ]
    assert all(b"event: progress\n" in event for event in heard[:3])
    assert [number_of(event) for event in heard[:3]] == [1, 2, 3]
    assert heard[3].endswith(b'id: 5\nevent: end\ndata: {"done": 3, "total": 3, "state": "done"}\n\n')
    assert len(heard) == 4
    assert len(listened.changes) == 0


def test_who_comes_back_hears_only_what_is_new(listened: Listened) -> None:
    store, job = listened.store, submit(listened.store)
    store.start_next()
    known = store.job(job.id).changes

    async def first(last: int | None) -> bytes:
        stream = listened.stream(job.id, last=last)
        listening = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        while not len(listened.changes):
            await asyncio.sleep(0)
        store.add(job.id, store.job(job.id).done, rows(store.job(job.id).done, 1))
        return await listening

    event = asyncio.run(first(known))
    assert number_of(event) == known + 1
    assert b'"done": 1' in event
    assert number_of(asyncio.run(first(known + 99))) >= known + 1  # a number that is none of ours


@pytest.mark.parametrize("last", [None, 1, 999])
def test_ended_job_tells_its_end_at_once_whatever_was_heard(listened: Listened, last: int | None) -> None:
    job = submit(listened.store)
    listened.store.fail(job.id, "no such model")

    async def listen() -> list[bytes]:
        return [event async for event in listened.stream(job.id, last=last)]

    (event,) = asyncio.run(listen())
    assert b'event: end\ndata: {"done": 0, "total": 3, "state": "failed", "error": "no such model"}' in event


def test_deleted_job_ends_the_stream(listened: Listened) -> None:
    job = submit(listened.store)
    listened.store.fail(job.id, "why")

    async def listen() -> list[bytes]:
        listened.store.delete(job.id)
        return [event async for event in listened.stream(job.id)]

    assert asyncio.run(listen()) == [b'id: 1\nevent: end\ndata: {"state": "cancelled"}\n\n']


def test_silence_is_broken_by_comments_and_the_end_of_the_server_ends_it(listened: Listened) -> None:
    job = submit(listened.store)

    async def listen() -> tuple[list[bytes], int]:
        stream = listened.stream(job.id, comment_s=0)
        heard = [await anext(stream) for _ in range(3)]
        listened.stopping.set()
        return heard, len([event async for event in stream])

    heard, more = asyncio.run(listen())
    assert [event[:1] for event in heard] == [b"i", b":", b":"]
    assert all(event.endswith(b"\n\n") for event in heard)
    assert more == 0


def test_listener_that_leaves_is_forgotten(listened: Listened) -> None:
    job = submit(listened.store)

    async def leave() -> int:
        stream = listened.stream(job.id)
        await anext(stream)
        there = len(listened.changes)
        await stream.aclose()  # type: ignore[attr-defined]
        return there

    assert asyncio.run(leave()) == 1
    assert len(listened.changes) == 0
    listened.changes.tell(job.id)
