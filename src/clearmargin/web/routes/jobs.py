"""Batches that are too long for one request: accepted, watched, fetched, deleted."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from clearmargin.web.answers import JobAnswer, PredictAnswer
from clearmargin.web.errors import ApiError
from clearmargin.web.jobs.events import tell_changes
from clearmargin.web.jobs.results import MEDIA_TYPE, Format, columns_of, write_answers
from clearmargin.web.jobs.running import Jobs, wanted_of
from clearmargin.web.jobs.schema import JobFacts, JobFile
from clearmargin.web.jobs.store import TooManyJobs, UnknownJob
from clearmargin.web.readable import check_has_similar
from clearmargin.web.serving import Serving, serving_of
from clearmargin.web.uploads import BODY, receive

router = APIRouter(prefix="/jobs", tags=["jobs"])

_RETRY_S = 30
_MOST_LISTENERS = 256
_CHUNK = 1 << 16
"""Characters of results that are sent at once."""


def jobs_of(serving: Annotated[Serving, Depends(serving_of)]) -> Jobs:
    """The jobs of the server; a dependency of routes."""
    if serving.jobs is None:
        raise ApiError("stopping", "the server is stopping.")
    return serving.jobs


@router.post("", status_code=202, response_model=JobAnswer, openapi_extra=BODY)
async def submit(
    request: Request,
    serving: Annotated[Serving, Depends(serving_of)],
    jobs: Annotated[Jobs, Depends(jobs_of)],
    model: Annotated[str | None, Query()] = None,
    similar: Annotated[int, Query(ge=0, le=50)] = 0,
    context: Annotated[bool, Query()] = True,
    prevalence: Annotated[float | None, Query(gt=0, lt=1)] = None,
) -> JSONResponse:
    """A job for these images: once this is answered they are on disk, and decided even if the server is killed."""
    served = serving.find(model)
    if similar:
        check_has_similar(served)
    if await asyncio.to_thread(jobs.store.under_way) >= serving.limits.max_jobs:
        raise _too_many(serving)
    wanted = wanted_of(served, context=context, similar=similar, prevalence=prevalence)
    head = json.dumps({"model": served.name, "operating_point": asdict(served.model.decision_point)})
    with _full_disk():
        job_id, folder = await asyncio.to_thread(jobs.store.new_folder)
        try:
            uploads = await receive(request, folder, serving.limits)
            files = [JobFile(upload.name, upload.path.name, upload.refusal) for upload in uploads]
            job = await _finish(
                lambda: jobs.store.accept(job_id, wanted, files, head=head, max_jobs=serving.limits.max_jobs)
            )
        except TooManyJobs:
            raise _too_many(serving) from None
        finally:
            await asyncio.shield(asyncio.to_thread(jobs.store.drop_unaccepted, job_id))
    jobs.worker.wake()
    return JSONResponse(_facts_of(job), 202, {"Location": f"/api/v1/jobs/{job.id}"})


@router.get("/{job_id}", response_model=JobAnswer)
def show(job_id: str, jobs: Annotated[Jobs, Depends(jobs_of)]) -> JSONResponse:
    """How a job stands."""
    return JSONResponse(_facts_of(_find(jobs, job_id)))


@router.delete("/{job_id}", status_code=204)
def delete(job_id: str, jobs: Annotated[Jobs, Depends(jobs_of)]) -> Response:
    """Cancels a job that is under way; deletes its images, names and answers at once."""
    try:
        jobs.store.delete(job_id)
    except UnknownJob:
        raise _unknown() from None
    jobs.worker.cancel(job_id)
    return Response(status_code=204)


@router.get("/{job_id}/results", response_model=PredictAnswer)
def results(
    job_id: str,
    jobs: Annotated[Jobs, Depends(jobs_of)],
    form: Annotated[Format, Query(alias="format")] = "json",
) -> StreamingResponse:
    """The rows of a job that is done, as `predict` gives them."""
    job = _find(jobs, job_id)
    if job.state != "done":
        why = {
            "failed": f"the job failed: {job.error}",
            "cancelled": "the job was cancelled; send the images again.",
        }
        how_far = f"{job.done:,} of {job.total:,} images of the job are decided; ask again when it is done."
        raise ApiError("not_ready", why.get(job.state, how_far))
    head, columns = jobs.store.head(job_id), columns_of(job.wanted)
    text = write_answers(jobs.store.answers(job_id), form, head=head, columns=columns)
    disposition = {"Content-Disposition": f'attachment; filename="predictions.{form}"'} if form != "json" else {}
    return StreamingResponse(_in_chunks(text), media_type=MEDIA_TYPE[form], headers=disposition)


@router.get(
    "/{job_id}/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def events(
    job_id: str,
    serving: Annotated[Serving, Depends(serving_of)],
    jobs: Annotated[Jobs, Depends(jobs_of)],
    last_event_id: Annotated[str | None, Header()] = None,
) -> StreamingResponse:
    """Server-sent events until the job ends: `progress` whenever it comes further, `end` at last."""
    await asyncio.to_thread(_find, jobs, job_id)
    if len(jobs.changes) >= _MOST_LISTENERS:
        raise ApiError("busy", "too many listen to jobs; ask for the job itself.", headers={"Retry-After": "5"})

    def find(job_id: str) -> JobFacts | None:
        try:
            return jobs.store.job(job_id)
        except UnknownJob:
            return None

    stream = tell_changes(job_id, find, jobs.changes, serving.stopping, last=_number(last_event_id))
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


def _facts_of(job: JobFacts) -> dict[str, object]:
    here = f"/api/v1/jobs/{job.id}"
    links = {"self": here, "events": f"{here}/events", "results": f"{here}/results"}
    return {
        "id": job.id, "state": job.state, "done": job.done, "total": job.total, "error": job.error, "links": links
    }  # fmt: skip


def _find(jobs: Jobs, job_id: str) -> JobFacts:
    try:
        return jobs.store.job(job_id)
    except UnknownJob:
        raise _unknown() from None


def _unknown() -> ApiError:
    return ApiError("not_found", "there is no such job, or it was deleted; an ended one is kept for some time only.")


def _too_many(serving: Serving) -> ApiError:
    return ApiError(
        "busy",
        f"{serving.limits.max_jobs:,} jobs are waiting or under way, which is the limit; try again later.",
        headers={"Retry-After": str(_RETRY_S)},
    )


async def _finish(work: Callable[[], JobFacts]) -> JobFacts:
    """What the work gives, which ends before this does, even when nobody waits for it any more."""
    doing = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(doing)
    finally:
        if not doing.done():
            await asyncio.wait({doing})


@contextmanager
def _full_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ApiError("no_space", "the server's disk is full; whoever runs it has to free some space.") from None


def _number(event_id: str | None) -> int | None:
    """The number that an id of ours is; None for others."""
    return int(event_id) if event_id and len(event_id) < 19 and event_id.isascii() and event_id.isdigit() else None


def _in_chunks(text: Iterator[str]) -> Iterator[str]:
    kept: list[str] = []
    size = 0
    for piece in text:
        kept.append(piece)
        size += len(piece)
        if size >= _CHUNK:
            yield "".join(kept)
            kept, size = [], 0
    yield "".join(kept)
