"""One request for a file: who is asked, what comes back, and what an answer other than the file means.

Only http and https are spoken, whatever a server redirects to, and a token goes to the server it is meant for only.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from dataclasses import dataclass
from typing import IO
from urllib import request as urllib_request
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from clearmargin import __version__
from clearmargin.errors import DataError

_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_LONGEST_WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where a file is, and what is known of it beforehand.

    `remedy` ends every error: what to do by hand. `authorization` goes to this host and no other. `checksummed` says
    that a mixture of two versions would be found out afterwards.
    """

    url: str
    remedy: str
    max_bytes: int
    authorization: str | None = None
    checksummed: bool = False


class Trouble(Exception):
    """A try that failed and may be made again."""

    def __init__(self, reason: str, *, wait_s: float | None = None, offline: bool = False) -> None:
        super().__init__(reason)
        self.wait_s = wait_s
        self.offline = offline  # hopeless, unless this call has reached the server before


class NothingBeyond(Exception):
    """The server says that the file ends where our bytes do, or before."""

    def __init__(self, total: int | None) -> None:
        super().__init__()
        self.total = total


def open_file(address: Address, *, start: int, validator: str | None, timeout_s: float) -> http.client.HTTPResponse:
    """The answer, of status 200 or 206; from the byte `start` on if the server can, and if it still has the same file.

    Args:
        address: whom to ask for what.
        start: the first byte wanted.
        validator: what told the version of the bytes before `start`; None when nothing did.
        timeout_s: how long the server may be silent.

    Raises:
        NothingBeyond: there is no byte beyond those we have.
        Trouble: another try may help.
        DataError: none will.
    """
    request = urllib_request.Request(address.url, headers={"User-Agent": f"clearmargin/{__version__}"})
    if address.authorization is not None:
        request.add_unredirected_header("Authorization", address.authorization)
    if start:
        request.add_header("Range", f"bytes={start}-")
        if validator is not None:
            request.add_header("If-Range", validator)
    try:
        response: http.client.HTTPResponse = _opener().open(request, timeout=timeout_s)
    except HTTPError as error:
        with error:
            if error.code == 416:
                whole = (error.headers.get("Content-Range") or "").rpartition("/")[2]
                raise NothingBeyond(parse_number(whole)) from None
            raise _refusal(address, error) from None
    except (URLError, http.client.HTTPException, OSError, ValueError) as error:  # ValueError: where it redirects to
        raise _unreachable(address, error) from None
    if response.status not in (200, 206):
        response.close()
        raise DataError(f"{address.url}: the server answered {response.status}, not a file. {address.remedy}")
    return response


def read_some(response: http.client.HTTPResponse, count: int) -> bytes:
    """At most so many bytes; none at the end.

    Raises:
        Trouble: the connection broke.
    """
    try:
        return response.read1(count)  # what is here now: a later break costs nothing of it
    except TimeoutError:
        raise Trouble("the server stopped sending") from None
    except (http.client.HTTPException, OSError) as error:
        raise Trouble(f"the connection broke ({_said(error)})") from None


def _refusal(address: Address, error: HTTPError) -> Exception:
    """What an HTTP error means: a try that may be made again, or the end."""
    if error.code in _TRANSIENT:
        wait = parse_number(error.headers.get("Retry-After"))
        return Trouble(
            f"the server answered {error.code} ({error.reason})",
            wait_s=None if wait is None else min(float(wait), _LONGEST_WAIT_S),
        )
    if 300 <= error.code < 400:
        return DataError(f"{address.url}: the server leads round in circles or away from http. {address.remedy}")
    if error.code in (401, 403) and address.authorization is not None:
        return DataError(
            f"{address.url}: the server answered {error.code}: the token is not valid, or the rules of the data set "
            f"have not been accepted on its page. {address.remedy}"
        )
    return DataError(f"{address.url}: the server answered {error.code} ({error.reason}). {address.remedy}")


def _unreachable(address: Address, error: Exception) -> Exception:
    """What a failed connection means: a try that may be made again, or the end."""
    reason = error.reason if isinstance(error, URLError) else error
    host = urlsplit(address.url).hostname
    if isinstance(reason, socket.gaierror):
        return Trouble(f"no network, or no such server as {host}", offline=True)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return DataError(
            f"{address.url}: the certificate of the server is not valid ({reason.verify_message}). {address.remedy}"
        )
    if isinstance(reason, TimeoutError):
        return Trouble(f"{host} does not answer")
    return Trouble(f"no connection to {host} ({_said(reason)})")


def _said(reason: object) -> str:
    return str(getattr(reason, "strerror", None) or reason) or type(reason).__name__


def parse_number(text: str | None) -> int | None:
    """The number in a header, or None.

    >>> parse_number("559580"), parse_number("*")
    (559580, None)
    """
    return int(text) if text is not None and text.isdecimal() and len(text) < 16 else None


class _Redirects(urllib_request.HTTPRedirectHandler):
    """Follows to http and https only, and hands the token on to the same server only."""

    def redirect_request(  # noqa: PLR0917  (the signature of the base class)
        self,
        req: urllib_request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib_request.Request | None:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise HTTPError(req.full_url, code, "redirected away from http", headers, fp)
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        token = req.unredirected_hdrs.get("Authorization")
        if following is not None and token is not None and _origin(newurl) == _origin(req.full_url):
            following.add_unredirected_header("Authorization", token)
        return following


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _opener() -> urllib_request.OpenerDirector:
    """Speaks http and https, through the proxy of the environment; no file, ftp or data addresses."""
    opener = urllib_request.OpenerDirector()
    for handler in (
        urllib_request.ProxyHandler(),
        urllib_request.UnknownHandler(),
        urllib_request.HTTPHandler(),
        urllib_request.HTTPSHandler(),
        urllib_request.HTTPDefaultErrorHandler(),
        urllib_request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener
