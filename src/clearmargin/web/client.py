"""A client of `clearmargin serve`: the answers of a bundle that another machine holds, as `Predictor` gives them.

Light: no network is loaded here. Files are read from disk while they are sent, and one at a time is open.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx

from clearmargin.errors import ClearmarginError, DataError, Interrupted, ServerError, UsageError
from clearmargin.types import Listener
from clearmargin.web.sending import check_url, forms_of, row_names

if TYPE_CHECKING:
    import pandas as pd

Pathlike = str | Path
_TRIES = 6
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_CONNECT_S, _SILENCE_S = 10.0, 300.0
_EVENT_SILENCE_S = 60.0
"""Comments come every 15 s, so that one this long means a lost connection."""
_KIND_OF_STATUS: dict[int, type[ClearmarginError]] = {
    400: UsageError,
    401: UsageError,
    403: UsageError,
    404: UsageError,
    405: UsageError,
    413: DataError,
    415: DataError,
    422: DataError,
}
_BUSY = 429


class Client:
    """Asks a server for decisions.

    A server that is busy is asked again when it says so, and one that cannot be reached is asked again for what
    changes nothing there. To be closed, or used in a `with` block.

    Args:
        url: of the server, as http://127.0.0.1:8000.
        token: where the server demands one.
        transport: for tests.

    Raises:
        UsageError: `url` is none.
    """

    def __init__(self, url: str, token: str | None = None, *, transport: httpx.BaseTransport | None = None) -> None:
        self.url = check_url(url)
        self._http = httpx.Client(
            base_url=f"{self.url}/api/v1/",
            headers={} if token is None else {"Authorization": f"Bearer {token}"},
            timeout=httpx.Timeout(_SILENCE_S, connect=_CONNECT_S),
            transport=transport,
            trust_env=httpx.URL(self.url).host not in ("127.0.0.1", "localhost", "::1"),  # no proxy leads there
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connections."""
        self._http.close()

    def predict(
        self,
        paths: Sequence[Pathlike] | Pathlike,
        model: str | None = None,
        *,
        similar: int = 0,
        context: bool = True,
        prevalence: float | None = None,
    ) -> pd.DataFrame:
        """A row for each image, with the columns of `Predictor.predict`; images in a zip are rows each.

        Args:
            paths: of the images; the server learns them as they are given here.
            model: its name on the server; the first by default.
            similar: so many training images that are most like each come along.
            context: neighbours of a patch count where places are known.
            prevalence: adds the column `at_prevalence`.

        Raises:
            DataError: a file cannot be read here, or none of them there.
            UsageError: an argument, the address or the token is wrong.
            ServerError: the server cannot be reached, or cannot answer.
        """
        files = _as_list(paths)
        answer = self._post(
            "predict", files, model=model, similar=similar, context=context, prevalence=prevalence
        ).json()
        return _table(answer["predictions"], files, with_prevalence=prevalence is not None)

    def explain(
        self,
        paths: Sequence[Pathlike] | Pathlike,
        model: str | None = None,
        *,
        method: str | Sequence[str] = (),
        alpha: float | None = None,
    ) -> list[dict[str, Any]]:
        """Which places of each image moved the network, as `POST explain` says; errors as of `predict`."""
        files = _as_list(paths)
        methods = [method] if isinstance(method, str) else list(method)
        explained: list[dict[str, Any]] = self._post(
            "explain", files, model=model, method=methods or None, alpha=alpha
        ).json()["explanations"]
        names = row_names([row["path"] for row in explained], files)
        return [{**row, "path": name} for row, name in zip(explained, names, strict=True)]

    def submit(
        self,
        paths: Sequence[Pathlike] | Pathlike,
        model: str | None = None,
        *,
        similar: int = 0,
        context: bool = True,
        prevalence: float | None = None,
    ) -> Job:
        """A job for images that are too many for one request; the server has them when this returns.

        Arguments and errors are those of `predict`.
        """
        files = _as_list(paths)
        answer = self._post("jobs", files, model=model, similar=similar, context=context, prevalence=prevalence)
        return Job(self, answer.json(), files, with_prevalence=prevalence is not None)

    def job(self, job_id: str) -> Job:
        """A job that was submitted before; its rows name images as they were named then.

        Raises:
            UsageError: there is none, any more.
        """
        return Job(self, self.get(f"jobs/{job_id}").json())

    def models(self) -> list[dict[str, Any]]:
        """What is served, and how good it is."""
        models: list[dict[str, Any]] = self.get("models").json()["models"]
        return models

    def card(self, model: str | None = None) -> str:
        """The model card, in Markdown."""
        return str(self.get("card", model=model).json()["markdown"])

    def health(self) -> dict[str, Any]:
        """That the server lives; needs no token."""
        health: dict[str, Any] = self.get("health").json()
        return health

    def version(self) -> dict[str, Any]:
        """Which software answers, and what it may be used for."""
        version: dict[str, Any] = self.get("version").json()
        return version

    def get(self, path: str, **query: str | None) -> httpx.Response:
        """The answer to a GET below /api/v1; tried again while the server is busy or cannot be reached."""
        given = {name: value for name, value in query.items() if value is not None}
        return self._ask(lambda: self._http.get(path, params=given), again=True)

    def delete(self, path: str) -> None:
        """A DELETE below /api/v1."""
        self._ask(lambda: self._http.delete(path), again=False)

    def events(self, path: str, last: str | None) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
        """Name, id and data of each event that the server sends until the connection ends.

        Raises:
            httpx.TransportError: the connection is lost.
        """
        headers = {"Accept": "text/event-stream"} | ({} if last is None else {"Last-Event-ID": last})
        timeout = httpx.Timeout(_EVENT_SILENCE_S, connect=_CONNECT_S)
        with self._http.stream("GET", path, headers=headers, timeout=timeout) as answer:
            if answer.is_error:
                answer.read()
            self._check(answer)
            yield from _events(answer.iter_lines())

    def unreachable(self, error: httpx.TransportError) -> ServerError:
        """What is said of a lost connection."""
        return ServerError(f"{self.url}: cannot be reached ({error or type(error).__name__}). Is the server running?")

    def _post(self, path: str, files: Sequence[str], **query: object) -> httpx.Response:
        given = {name: value for name, value in query.items() if value is not None}
        forms = forms_of(files)
        with contextlib.ExitStack() as stack:
            for _, (_, file, _) in forms:
                stack.callback(file.close)
            return self._ask(lambda: self._http.post(path, params=given, files=forms), again=False)  # type: ignore[arg-type]

    def _ask(self, send: Callable[[], httpx.Response], *, again: bool) -> httpx.Response:
        """The answer.

        Args:
            send: asks once.
            again: asking twice changes nothing, so that a lost connection is no end.
        """
        for pause_s in [*_pauses(_TRIES - 1), None]:
            try:
                answer = send()
            except httpx.LocalProtocolError as error:
                raise DataError(f"a file changed while it was sent ({error}). Send it again.") from None
            except httpx.TransportError as error:
                if not again or pause_s is None:
                    raise self.unreachable(error) from None
                time.sleep(pause_s)
                continue
            if answer.status_code != _BUSY or pause_s is None:
                break
            time.sleep(_retry_after(answer, pause_s))
        self._check(answer)
        return answer

    def _check(self, answer: httpx.Response) -> None:
        if answer.is_success:
            return
        try:
            error = answer.json()["error"]
            message, details = str(error["message"]), error["details"]
        except (ValueError, KeyError, TypeError):
            raise ServerError(
                f"{self.url}: answers {answer.status_code}, and not as clearmargin serve does. Is the address right?"
            ) from None
        if details and "path" in details[0]:
            message = f"{message.rstrip('.')}: {details[0]['path']}: {details[0]['reason']}"
        raise _KIND_OF_STATUS.get(answer.status_code, ServerError)(message)


class Job:
    """A batch that a server works on.

    Args:
        client: of the server.
        facts: of the job, as the server tells them.
        files: the paths that were sent; None where they are not known.
        with_prevalence: probabilities at a prevalence were asked for; None where that is not known.
    """

    def __init__(
        self,
        client: Client,
        facts: Mapping[str, Any],
        files: Sequence[str] | None = None,
        *,
        with_prevalence: bool | None = None,
    ) -> None:
        self._client, self._files, self._with_prevalence = client, files, with_prevalence
        self.id = str(facts["id"])
        self._hear(facts)

    def __repr__(self) -> str:
        return f"<Job {self.id}: {self.state}, {self.done:,} of {self.total:,}>"

    def refresh(self) -> Self:
        """The same job, as it stands now."""
        self._hear(self._client.get(f"jobs/{self.id}").json())
        return self

    def wait(self, listener: Listener = Listener()) -> Self:
        """The same job when it is done; the server may be started again meanwhile.

        Args:
            listener: hears how far it is.

        Raises:
            DataError: it failed; says why.
            Interrupted: it was cancelled.
            ServerError: the server cannot be reached any more.
        """
        listener.stage("predict")
        last: str | None = None
        pauses = _pauses(_TRIES)
        while self.state in ("queued", "running"):
            lost: httpx.TransportError | None = None
            try:
                for name, number, facts in self._client.events(f"jobs/{self.id}/events", last):
                    pauses, last = _pauses(_TRIES), number or last
                    self._hear(facts)
                    listener.advance(self.done, self.total)
                    if name == "end":
                        break
            except httpx.TransportError as error:
                lost = error
            if self.state in ("queued", "running"):
                pause_s = next(pauses, None)
                if pause_s is None:
                    raise self._client.unreachable(lost or httpx.ReadError("it ends every connection")) from None
                time.sleep(pause_s)
        if self.state == "failed":
            raise DataError(f"the job failed: {self.error}")
        if self.state == "cancelled":
            raise Interrupted("the job was cancelled.")
        return self

    def results(self) -> pd.DataFrame:
        """The rows, as `Client.predict` gives them.

        Raises:
            ServerError: it is not done.
            UsageError: it was deleted.
        """
        rows = self._client.get(f"jobs/{self.id}/results", format="json").json()["predictions"]
        told = any(row["at_prevalence"] is not None for row in rows)
        asked = told if self._with_prevalence is None else self._with_prevalence
        return _table(rows, self._files, with_prevalence=asked)

    def cancel(self) -> None:
        """Ends the work, and deletes images, names and answers from the server."""
        self._client.delete(f"jobs/{self.id}")
        self.state = "cancelled"

    def _hear(self, facts: Mapping[str, Any]) -> None:
        self.state = str(facts["state"])
        self.done, self.total = int(facts.get("done", 0)), int(facts.get("total", 0))
        self.error: str | None = facts.get("error")


def _as_list(paths: Sequence[Pathlike] | Pathlike) -> list[str]:
    return [str(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]


def _table(rows: Sequence[Mapping[str, Any]], files: Sequence[str] | None, *, with_prevalence: bool) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415  (slow to import)

    names = [row["path"] for row in rows]
    left_out = {"in_context"} if with_prevalence else {"in_context", "at_prevalence"}  # a Predictor's table has neither
    columns = [key for key in (rows[0] if rows else ()) if key not in left_out]
    found = names if files is None else row_names(names, files)
    return pd.DataFrame([{**row, "path": name} for row, name in zip(rows, found, strict=True)], columns=columns)


def _pauses(tries: int) -> Iterator[float]:
    """Seconds to wait after each try, ever longer."""
    return (min(_FIRST_PAUSE_S * 2**number, _LONGEST_PAUSE_S) for number in range(tries))


def _retry_after(answer: httpx.Response, otherwise: float) -> float:
    try:
        return min(max(0.0, float(answer.headers["Retry-After"])), _LONGEST_PAUSE_S)
    except (KeyError, ValueError):
        return otherwise


def _events(lines: Iterator[str]) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
    fields: dict[str, str] = {}
    for line in lines:
        if line == "":
            if "data" in fields:
                yield fields.get("event", "message"), fields.get("id"), json.loads(fields["data"])
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
