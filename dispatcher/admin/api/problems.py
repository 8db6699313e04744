"""What goes wrong, as `application/problem+json` (RFC 9457), with every field at fault.

400: the request cannot be read (no JSON, wrong encoding). 422: it can, and fields or query
parameters break rules; `errors` lists all of them.
"""

import math
from http import HTTPStatus
from typing import Any, Final

import structlog
from aiohttp import web

from dispatcher.admin.operations.objects import write_json
from dispatcher.core.errors import (
    ConflictError,
    DispatcherError,
    EncodingError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    PreconditionFailedError,
    SecretError,
    StoreUnavailableError,
    TooManyError,
)

CONTENT_TYPE: Final = "application/problem+json"
ERRORS_MAX: Final = 100
"""Fields at fault that are listed: a body can hold a hundred thousand, and nobody reads them."""
FIELD_CHARACTERS_MAX: Final = 256
"""What of a field's name is repeated; whoever asks chose it."""
MESSAGE_CHARACTERS_MAX: Final = 512
UNAVAILABLE_RETRY_SECONDS: Final = 2
_TITLES: Final = {
    413: "Content Too Large",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}
"""Titles that Python before 3.13 takes from an older standard: a client sees the same on each. Source: RFC 9110."""
_log = structlog.get_logger("dispatcher.admin.api")


class ProblemError(DispatcherError):
    """A request that is refused before any operation sees it."""

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
    errors: list[tuple[str, str]] | None = None,
    headers: dict[str, str] | None = None,
) -> web.Response:
    """Returns the answer."""
    title = _TITLES.get(status) or HTTPStatus(status).phrase
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
    }
    if errors is not None:
        body["errors"] = [
            {"field": field[:FIELD_CHARACTERS_MAX], "message": message[:MESSAGE_CHARACTERS_MAX]}
            for field, message in errors[:ERRORS_MAX]
        ]
    return web.Response(
        body=write_json(body),
        status=status,
        reason=title,
        content_type=CONTENT_TYPE,
        headers=headers,
    )


def problem_of(error: Exception) -> web.Response:
    """Returns the answer to what an operation raised; what nobody expected is logged, not shown."""
    match error:
        case ProblemError():
            answer = problem(error.status, str(error), headers=error.headers)
            if error.close:
                answer.force_close()
            return answer
        case InvalidRequestError():
            count = len(error.problems)
            detail = f"{count} field{'' if count == 1 else 's'} at fault: see errors"
            if count > ERRORS_MAX:
                detail += f", which lists the first {ERRORS_MAX}"
            return problem(422, detail, errors=error.problems)
        case ForbiddenError():
            return problem(403, str(error))
        case NotFoundError():
            return problem(404, str(error))
        case ConflictError() | SecretError() | EncodingError():
            return problem(409, str(error))
        case PreconditionFailedError():
            return problem(412, str(error))
        case TooManyError():
            seconds = max(1, math.ceil(error.retry_after_seconds))
            return problem(429, str(error), headers={"Retry-After": str(seconds)})
        case StoreUnavailableError():
            return _unavailable("the database is away; nothing is lost, try again")
        case TimeoutError():
            return _unavailable("it took too long; try again")
        case DispatcherError():
            return _unavailable(str(error))
        case _:
            _log.error("request.failed", exc_info=error)
            return problem(500, "an error of the dispatcher's; its log tells more")


def _unavailable(detail: str) -> web.Response:
    return problem(503, detail, headers={"Retry-After": str(UNAVAILABLE_RETRY_SECONDS)})
