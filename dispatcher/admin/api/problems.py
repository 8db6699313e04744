"""Errors as `application/problem+json` (RFC 9457), with every invalid field.

400: the request cannot be read (no JSON, wrong encoding). 422: it can, and fields or query
parameters break rules; `errors` lists all of them.
"""

import math
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

import structlog
from aiohttp import web

from dispatcher.admin.resources.problem import count_text, field_problems
from dispatcher.admin.resources.serialization import write_json
from dispatcher.core.errors import (
    ConflictError,
    DispatcherError,
    EncodingError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    OutcomeUnknownError,
    OverloadedError,
    PreconditionFailedError,
    SecretError,
    StoreUnavailableError,
    TooManyError,
)
from dispatcher.core.problems import Problem

CONTENT_TYPE: Final = "application/problem+json"
UNAVAILABLE_RETRY_SECONDS: Final = 2
_TITLES: Final = {
    413: "Content Too Large",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}
"""Titles that Python before 3.13 takes from an older standard: a client sees the same on each. Source: RFC 9110."""
CODES: Final = {
    400: "malformed_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "body_timeout",
    409: "conflict",
    412: "version_changed",
    413: "body_too_large",
    415: "unsupported_media_type",
    416: "range_not_satisfiable",
    422: "invalid_request",
    429: "too_many_requests",
    500: "internal",
    503: "unavailable",
}
"""The code of a status whose error has none of its own; of any other status its title."""
_log = structlog.get_logger("dispatcher.admin.api")


class ProblemError(DispatcherError):
    """A request that is rejected before its operation is called."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: dict[str, str] | None = None,
        close: bool = False,
    ) -> None:
        self.status = status
        self.headers = headers or {}
        self.close = close
        super().__init__(detail)


def problem(
    status: int,
    detail: str,
    *,
    code: str | None = None,
    errors: Sequence[Problem] | None = None,
    headers: dict[str, str] | None = None,
) -> web.Response:
    """Return a problem response."""
    title = _TITLES.get(status) or HTTPStatus(status).phrase
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "code": code or CODES.get(status) or title.lower().replace(" ", "_"),
        "detail": detail,
    }
    if errors is not None:
        body["errors"] = field_problems(errors)
    return web.Response(
        body=write_json(body),
        status=status,
        reason=title,
        content_type=CONTENT_TYPE,
        headers=headers,
    )


def problem_of(error: Exception) -> web.Response:
    """Return the response to an error; an unexpected one is logged and its text is not shown."""
    match error:
        case ProblemError():
            response = problem(error.status, str(error), headers=error.headers)
            if error.close:
                response.force_close()
            return response
        case InvalidRequestError():
            return problem(422, count_text(len(error.problems)), errors=error.problems)
        case ForbiddenError():
            return problem(403, str(error), code=error.code)
        case NotFoundError():
            return problem(404, str(error), code=error.code)
        case ConflictError() | SecretError() | EncodingError():
            return problem(409, str(error), code=error.code)
        case PreconditionFailedError():
            return problem(412, str(error), code=error.code)
        case TooManyError():
            seconds = max(1, math.ceil(error.retry_after_seconds))
            return problem(429, str(error), code=error.code, headers={"Retry-After": str(seconds)})
        case OutcomeUnknownError():
            return _unavailable(
                "The database did not confirm the commit, so the event may be published."
                " With an id of your own, publishing again is safe.",
                error.code,
            )
        case OverloadedError():
            return _unavailable(str(error), error.code)
        case StoreUnavailableError():
            return _unavailable("The database is unavailable. Nothing is lost; try again.")
        case TimeoutError():
            return _unavailable("The request took too long. Try again.", "timed_out")
        case DispatcherError():
            return _unavailable(str(error), error.code)
        case _:
            _log.error("request.failed", exc_info=error)
            return problem(500, "an internal error; the dispatcher's log has the details")


def _unavailable(detail: str, code: str = "database_unavailable") -> web.Response:
    return problem(503, detail, code=code, headers={"Retry-After": str(UNAVAILABLE_RETRY_SECONDS)})
