"""The one shape of an error, and how every exception becomes one.

No message holds a path of this machine or anything of an image; `details` name files as the client named them.
What is unforeseen is answered without particulars, and its exception's message, which could hold anything, is
logged nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from clearmargin.errors import ClearmarginError, ImageError, one_line

Code = Literal[
    "bad_request",
    "unauthorized",
    "cross_site",
    "not_found",
    "method_not_allowed",
    "too_slow",
    "not_ready",
    "too_large",
    "unsupported",
    "unprocessable",
    "busy",
    "internal",
    "stopping",
    "timeout",
    "no_space",
]
STATUS_OF: dict[Code, int] = {
    "bad_request": 400,
    "unauthorized": 401,
    "cross_site": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "too_slow": 408,
    "not_ready": 409,
    "too_large": 413,
    "unsupported": 415,
    "unprocessable": 422,
    "busy": 429,
    "internal": 500,
    "stopping": 503,
    "timeout": 503,
    "no_space": 507,
}
_CODE_OF: dict[int, Code] = {status: code for code, status in reversed(STATUS_OF.items())}
_MOST_DETAILS = 100
INTERNAL = "a bug in clearmargin; the request_id finds it in the server's log."


class ApiError(Exception):
    """Ends a request with this error.

    Args:
        code: of STATUS_OF, which has the status.
        message: one line: what, where, how to fix it.
        details: more of it, JSON; the first hundred are kept.
        headers: of the answer.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        details: Sequence[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.code, self.status, self.details = code, STATUS_OF[code], list(details[:_MOST_DETAILS])
        self.headers = dict(headers or {})
        super().__init__(one_line(message))


def error_body(error: ApiError, request_id: str) -> dict[str, Any]:
    """The JSON of an error."""
    return {
        "error": {
            "status": error.status,
            "code": error.code,
            "message": str(error),
            "request_id": request_id,
            "details": error.details,
        }
    }


def error_response(error: ApiError, request_id: str) -> JSONResponse:
    """The answer that tells of an error."""
    return JSONResponse(error_body(error, request_id), error.status, error.headers)


def api_error(error: Exception) -> ApiError:
    """What is told of an exception."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError):
        # The value that was given is not repeated.
        details = [{"field": ".".join(map(str, each["loc"])), "reason": str(each["msg"])} for each in error.errors()]
        first = details[0] if details else {"field": "request", "reason": "invalid"}
        return ApiError("unprocessable", f"{first['field']}: {first['reason']}.", details=details)
    if isinstance(error, HTTPException):
        code = _CODE_OF.get(error.status_code, "internal" if error.status_code >= 500 else "bad_request")
        messages: dict[Code, str] = {
            "not_found": "there is nothing here; /api/v1/openapi.json lists what there is.",
            "method_not_allowed": "this path does not take that method; see the header Allow.",
        }
        return ApiError(code, messages.get(code, "the request cannot be understood."), headers=error.headers)
    if isinstance(error, ImageError):
        return ApiError("unprocessable", f"the image cannot be used: {one_line(error.reason)}.")
    return ApiError("internal", INTERNAL)


def add_error_handlers(app: FastAPI) -> None:
    """Answers every foreseen exception of a route in the one shape; the guard does so with what is left."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        return error_response(api_error(error), request.state.request_id)

    for kind in (ApiError, ClearmarginError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answer)
