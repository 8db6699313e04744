"""The bases of resources: requests, responses, and the query of a page."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, ClassVar, Self, TypeVar, dataclass_transform

from pydantic import BaseModel, ConfigDict, ValidationError

from dispatcher.admin.resources.fields import Cursor, QueryLimit, Time
from dispatcher.admin.resources.presentation import Option, Reading
from dispatcher.admin.resources.serialization import time_text
from dispatcher.admin.resources.validation import NOW, problems_of
from dispatcher.core.errors import InvalidRequestError

_Resource = TypeVar("_Resource", bound="Response")


class Request(BaseModel):
    """The fields of a request: frozen, strict, and closed to unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)
    IS_FILTER: ClassVar[bool] = False
    """Whether its fields are conditions, so that `none` on the command line is a value like any other."""

    @classmethod
    def of(cls, now: datetime | None = None, /, **values: Any) -> Self:  # noqa: ANN401 -- validated here
        """Return the request with these values; without `now`, times are not compared with it.

        Raises:
            InvalidRequestError: values are invalid; has all problems.
        """
        try:
            return cls.model_validate(values, context=None if now is None else {NOW: now})
        except ValidationError as error:
            raise InvalidRequestError(problems_of(error)) from None

    def given(self) -> dict[str, object]:
        """Return the filters that are set, ready for the audit log; a cursor is bound to them."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {
            name: time_text(value) if isinstance(value, datetime) else value
            for name, value in values.items()
            if name not in {"limit", "cursor"} and value is not None and value not in ({}, "")
        }


class Response:
    """The base of a resource as operations return it and the API writes it.

    Each is a dataclass (`resource`), built from trusted rows without validation: a row that a newer
    replica wrote must be shown as well. ADR 0057 has the measurements.
    """

    __slots__ = ()
    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def resource(cls: type[_Resource]) -> type[_Resource]:
    """Make a class a resource: a dataclass with slots and keyword arguments, which is not to be changed.

    The type checker rejects a change. A check at run time would treble the time that building one takes.
    """
    return dataclass(slots=True, kw_only=True)(cls)


Since = Annotated[
    Time | None,
    Option(metavar="TIME", help="RFC 3339, or a time ago: 15m, 2h, 7d.", reads=Reading.PAST),
]
Until = Annotated[
    Time | None, Option(metavar="TIME", help="As --since, exclusive.", reads=Reading.PAST)
]


class PageQuery(Request):
    """A page of a list."""

    IS_FILTER: ClassVar[bool] = True

    limit: Annotated[QueryLimit, Option(metavar="N", help="Items per page, 1 to 500.")] = 50
    cursor: Annotated[
        Cursor | None, Option(metavar="CURSOR", help="The cursor of the next page.")
    ] = None
