"""The body of an error: what is wrong, for programs and for people (RFC 9457)."""

from collections.abc import Sequence
from typing import Final

from dispatcher.admin.resources.base import Response, resource
from dispatcher.core import problems
from dispatcher.core.printable import escape

ERRORS_MAX: Final = 100
"""Problems that are listed: a body can hold a hundred thousand, and people read a few."""
FIELD_CHARACTERS_MAX: Final = 256
"""How much of a field's name is repeated; the caller chose it."""


@resource
class FieldProblem(Response):
    """One problem of one field."""

    field: str
    code: str
    message: str
    fix: str


@resource
class Problem(Response):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: list[FieldProblem] | None = None


def field_problems(found: Sequence[problems.Problem]) -> list[FieldProblem]:
    """Return the first problems, and bound what they repeat."""
    return [
        FieldProblem(
            field=escape(one.field[:FIELD_CHARACTERS_MAX]),
            code=one.code,
            message=one.message,
            fix=one.fix,
        )
        for one in found[:ERRORS_MAX]
    ]


def count_text(count: int) -> str:
    """Return how many fields are invalid, and how many of them are listed."""
    text = f"{count} field{' is' if count == 1 else 's are'} invalid; see errors"
    return text + (f", which lists the first {ERRORS_MAX}" if count > ERRORS_MAX else "")
