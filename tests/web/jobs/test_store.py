from __future__ import annotations

import errno
import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clearmargin.errors import UsageError
from clearmargin.web.jobs.schema import JobFacts, JobFile, Wanted
from clearmargin.web.jobs.store import JobStore, TooManyJobs, UnknownJob

WANTED = Wanted("small", "0" * 64, gated=True)
NAME = "PATIENT-Miller-1961.png"


def submit(store: JobStore, n: int = 3, *, max_jobs: int = 100) -> JobFacts:
    """A job of `n` images, each named for a patient."""
    job_id, folder = store.new_folder()
    for number in range(n):
        (folder / f"f{number}").write_bytes(b"image")
    files = [JobFile(f"{number}/{NAME}", f"f{number}") for number in range(n)]
    return store.accept(job_id, WANTED, files, head='{"model": "small"}', max_jobs=max_jobs)


def rows(first: int, n: int) -> list[str]:
    return [json.dumps({"row": number, "path": NAME}) for number in range(first, first + n)]


def crash(store: JobStore) -> None:
    """What a killed process leaves: nothing is ended, only the lock is free."""
    store._owner.release()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    opened = JobStore(tmp_path / "state")
    yield opened
    opened.close()


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() + path.name.encode() for path in folder.rglob("*") if path.is_file())


def test_accepted_job_outlives_a_killed_process(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    job = submit(store)
    crash(store)
    again = JobStore(tmp_path)
    assert again.job(job.id) == job
    assert [each.name for each in again.files(job.id)] == [f"{number}/{NAME}" for number in range(3)]
    assert all((again.folder_of(job.id) / each.file).is_file() for each in again.files(job.id))
    assert again.head(job.id) == '{"model": "small"}'
    again.close()


def test_images_of_a_job_that_was_not_accepted_go(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    job_id, folder = store.new_folder()
    (folder / "half").write_bytes(b"image")
    store.drop_unaccepted(job_id)
    assert not folder.exists()
    _, left_by_a_kill = store.new_folder()
    kept = submit(store)
    store.drop_unaccepted(kept.id)
    crash(store)
    again = JobStore(tmp_path)
    assert not left_by_a_kill.exists()
    assert again.folder_of(kept.id).is_dir()
    again.close()


def test_nobody_else_can_read_what_patients_are_called(store: JobStore) -> None:
    job = submit(store)
    assert store.folder.stat().st_mode & 0o777 == 0o700
    assert store.folder_of(job.id).stat().st_mode & 0o777 == 0o700
    tables = [path for path in store.folder.iterdir() if path.name.startswith("jobs.sqlite")]
    assert len(tables) >= 2  # its log too
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tables)
    assert not any(NAME in path.name for path in store.folder.rglob("*"))


@pytest.mark.parametrize("ended", [True, False])
def test_no_byte_of_a_name_is_left_of_a_deleted_job(store: JobStore, ended: bool) -> None:
    job = submit(store)
    store.start_next()
    store.add(job.id, 0, rows(0, 3 if ended else 2))
    if ended:
        store.finish(job.id)
    assert NAME.encode() in everything_in(store.folder)
    store.delete(job.id)
    assert NAME.encode() not in everything_in(store.folder)
    assert not store.folder_of(job.id).exists()
    if ended:
        with pytest.raises(UnknownJob):
            store.job(job.id)
    else:
        assert store.job(job.id).state == "cancelled"
        assert not store.add(job.id, 2, rows(2, 1))
        store.delete(job.id)
        with pytest.raises(UnknownJob):
            store.delete(job.id)


def test_images_go_with_the_end_and_answers_after_the_hours(tmp_path: Path) -> None:
    now = [1000.0]
    store = JobStore(tmp_path, keep_hours=2, clock=lambda: now[0])
    job, waiting = submit(store), submit(store)
    store.start_next()
    store.add(job.id, 0, rows(0, 3))
    store.finish(job.id)
    assert not store.folder_of(job.id).exists()
    now[0] += 2 * 3600 - 1
    assert store.sweep() == 0
    assert list(store.answers(job.id)) == rows(0, 3)
    now[0] += 1
    store.close()
    again = JobStore(tmp_path, keep_hours=2, clock=lambda: now[0])
    with pytest.raises(UnknownJob):
        again.job(job.id)
    assert again.job(waiting.id).state == "queued"  # whatever its age
    again.close()


def test_jobs_are_taken_in_the_order_they_came_and_no_more_than_allowed(store: JobStore) -> None:
    first, second = submit(store, max_jobs=2), submit(store, max_jobs=2)
    with pytest.raises(TooManyJobs):
        submit(store, max_jobs=2)
    assert store.start_next() is not None
    store.fail(first.id, "why")
    assert (store.job(first.id).state, store.job(first.id).error) == ("failed", "why")
    following = store.start_next()
    assert following is not None
    assert following.id == second.id
    submit(store, max_jobs=2)


def test_job_that_killed_the_server_twice_at_one_place_is_not_tried_again(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    job, innocent = submit(store, 200), submit(store)
    for kept, state in ((32, "queued"), (64, "queued"), (64, "failed")):  # a kill that followed progress proves nothing
        store.start_next()
        store.add(job.id, store.job(job.id).done, rows(store.job(job.id).done, kept - store.job(job.id).done))
        crash(store)
        store = JobStore(tmp_path)
        assert store.job(job.id).state == state
    assert "killed twice while it worked on image 65 of 200" in (store.job(job.id).error or "")
    assert not store.folder_of(job.id).exists()
    following = store.start_next()
    assert following is not None
    assert following.id == innocent.id
    store.close()


def test_server_that_ended_well_is_no_sign_of_a_bad_job(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    job = submit(store)
    for _ in range(3):
        store.start_next()
        store.release(job.id)
        store.close()
        store = JobStore(tmp_path)
    assert store.job(job.id).state == "queued"
    store.close()


def test_second_server_on_one_folder_is_told_in_one_line(store: JobStore) -> None:
    with pytest.raises(UsageError, match=r"another server uses this folder\. End it, or give another .* --state"):
        JobStore(store.folder)


@pytest.mark.parametrize("damage", [b"not a database, but long enough to look at" * 9, None])
def test_tables_that_cannot_be_used_are_left_as_they_are(tmp_path: Path, damage: bytes | None) -> None:
    JobStore(tmp_path).close()
    tables = tmp_path / "jobs.sqlite"
    if damage is None:
        later = sqlite3.connect(tables)
        later.execute("PRAGMA user_version=99")
        later.close()
    else:
        tables.write_bytes(damage)
    before = tables.read_bytes()
    for _ in range(2):  # the lock is free again
        with pytest.raises(UsageError, match=r"jobs\.sqlite: cannot be used .* --state"):
            JobStore(tmp_path)
    assert tables.read_bytes() == before


def test_full_disk_changes_nothing(store: JobStore) -> None:
    job = submit(store)
    store.start_next()
    store._tables.execute(f"PRAGMA max_page_count={store._tables.execute('PRAGMA page_count').fetchone()[0]}")
    with pytest.raises(OSError) as error:
        store.add(job.id, 0, ["x" * 100_000])
    assert error.value.errno == errno.ENOSPC
    assert store.job(job.id).done == 0
    store._tables.execute("PRAGMA max_page_count=1000000")
    assert store.add(job.id, 0, rows(0, 3))
    store.finish(job.id)
    assert store.job(job.id).state == "done"


def test_answers_deleted_while_they_are_read_do_not_look_whole(store: JobStore) -> None:
    job = submit(store, 1200)
    store.start_next()
    store.add(job.id, 0, rows(0, 1200))
    store.finish(job.id)
    reading = store.answers(job.id)
    next(reading)
    store.delete(job.id)
    with pytest.raises(UnknownJob):
        list(reading)


def test_threads_share_a_store(store: JobStore) -> None:
    def work() -> None:
        for _ in range(5):
            submit(store)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.counts() == {"queued": 20}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3), st.sampled_from(["go on", "end", "kill"]))))
def test_rows_are_kept_once_and_in_order_whatever_happens_between(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, str]]
) -> None:
    folder, total = tmp_path_factory.mktemp("state"), 20
    store = JobStore(folder)
    job_id = submit(store, total).id
    store.start_next()
    changes = [store.job(job_id).changes]
    for n, back, then in steps:
        done = store.job(job_id).done
        if store.job(job_id).is_ended:
            break
        first = max(0, done - back)  # a slide is begun again
        fresh = rows(first, min(n + back, total - first))
        assert store.add(job_id, first, fresh)
        assert store.job(job_id).done == max(done, first + len(fresh))
        if then == "end":
            store.release(job_id)
            store.close()
        elif then == "kill":
            crash(store)
        if then != "go on":
            store = JobStore(folder)
            store.start_next()
        changes.append(store.job(job_id).changes)
    done = store.job(job_id).done
    assert list(store.answers(job_id)) == rows(0, done)
    assert changes == sorted(changes)
    store.finish(job_id)
    assert (store.job(job_id).state == "done") == (done == total and store.job(job_id).error is None)
    store.close()
