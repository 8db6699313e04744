"""Turns errors into pages that show the cause and the next step."""

from typing import Final

from aiohttp import web

from dispatcher.admin.console.context import Context
from dispatcher.core.errors import (
    ConflictError,
    DispatcherError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    PreconditionFailedError,
    StoreUnavailableError,
    TooManyError,
)

_STATUS: Final[tuple[tuple[type[DispatcherError], int], ...]] = (
    (InvalidRequestError, 422),
    (NotFoundError, 404),
    (ForbiddenError, 403),
    (ConflictError, 409),
    (PreconditionFailedError, 412),
    (TooManyError, 429),
    (StoreUnavailableError, 503),
)
_WITH_A_PAGE: Final = frozenset({403, 404, 405, 409, 412, 413, 415, 422, 429, 503})
RETRY_AFTER_SECONDS: Final = 5


def failure_page(
    context: Context, error: DispatcherError | web.HTTPException
) -> web.StreamResponse:
    """Return the page of an error; raise a redirect again."""
    if isinstance(error, web.HTTPException):
        if error.status < 400:  # noqa: PLR2004 -- no error
            raise error
        return error_page(context, error.status, "" if error.status != 403 else error.text or "")  # noqa: PLR2004 -- ours
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    answer = error_page(
        context,
        status,
        context.problem(error),
        [(one.field, context.problem_text(one)) for one in error.problems]
        if isinstance(error, InvalidRequestError)
        else [],
        is_translated=error.problem is not None,
    )
    match error:
        case TooManyError():
            answer.headers["Retry-After"] = str(max(1, round(error.retry_after_seconds)))
        case StoreUnavailableError():
            answer.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
        case _:
            pass
    return answer


def error_page(
    context: Context,
    status: int,
    detail: str,
    faults: list[tuple[str, str]] | None = None,
    *,
    is_translated: bool = True,
) -> web.Response:
    """Return the page of a status; `detail` is the message of the error, shown below ours.

    A message without a code is not translated, and is marked as English.
    """
    return context.page(
        "error.html",
        status=status,
        status_code=status,
        kind=str(status) if status in _WITH_A_PAGE else "other",
        detail=detail,
        faults=faults or [],
        is_translated=is_translated,
    )
