"""Kinds of values in requests and answers: how each is read, and how OpenAPI describes it."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
)

from dispatcher.admin.api.body import is_text
from dispatcher.admin.operations.objects import JsonText

_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_MICROSECONDS: Final = 6

FAULTS: Final = {
    "missing": "is required",
    "extra_forbidden": "is not known here",
    "string_type": "must be a text",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "dict_type": "must be an object",
    "list_type": "must be a list",
    "model_type": "must be an object",
}
"""What a person reads in place of the validator's own words."""


class Given(BaseModel):
    """What a request gives: frozen, strict, and closed to unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Shown(BaseModel):
    """What an answer holds; it describes, and is not run for each answer."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def faults_of(error: ValidationError) -> list[tuple[str, str]]:
    """Returns every fault as (field, message)."""
    faults = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        path = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"]
        )
        message = FAULTS.get(fault["type"]) or fault["msg"].removeprefix("Value error, ")
        faults.append((path.removeprefix("."), message))
    return faults


def read_time(value: object) -> datetime:
    """Reads RFC 3339; digits beyond the microsecond are cut off."""
    if not isinstance(value, str) or _TIME.fullmatch(value) is None:
        raise ValueError("must be a time with its zone, as in 2026-05-29T14:32:11Z")
    text = value.upper()
    head, point, tail = text.partition(".")
    if point:
        digits = re.match("[0-9]+", tail)
        assert digits is not None  # noqa: S101 -- the pattern asks for them
        zone = tail[digits.end() :]
        text = f"{head}.{digits[0][:_MICROSECONDS].ljust(_MICROSECONDS, '0')}{zone}"
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("must be a time that there is, in the years 1 to 9999") from None


def _read_text(value: object) -> object:
    if isinstance(value, str) and not is_text(value):
        raise ValueError("must have no NUL and no lone surrogate")
    return value


def _read_truth(value: object) -> bool:
    if value in ("true", "false"):
        return value == "true"
    raise ValueError("must be true or false")


def _read_number(value: object) -> int:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return int(value)
    raise ValueError("must be a whole number")


def _read_labels(value: object) -> dict[str, str]:
    """Reads `name=value`, each name once."""
    found: dict[str, str] = {}
    for text in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
        name, equals, wanted = str(text).partition("=")
        if not equals or not name:
            raise ValueError("must be name=value")
        if name in found:
            raise ValueError(f"gives {name} twice")
        found[name] = wanted
    return found


def _read_object(value: object) -> JsonText:
    if isinstance(value, JsonText) and value.text[:1] == "{":
        return value
    raise ValueError("must be an object")


Time = Annotated[
    datetime,
    BeforeValidator(read_time),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-05-29T14:32:11Z"]}),
]
"""A time in a request."""
TimeText = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""A time in an answer: RFC 3339 in UTC with microseconds and `Z`."""
Text = Annotated[str, BeforeValidator(_read_text), Field(max_length=256)]
QueryTruth = Annotated[bool, PlainValidator(_read_truth), WithJsonSchema({"type": "boolean"})]
QueryLimit = Annotated[
    int,
    PlainValidator(_read_number),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 500, "default": 50}),
]
QueryLabels = Annotated[
    dict[str, str],
    PlainValidator(_read_labels),
    WithJsonSchema(
        {"type": "array", "items": {"type": "string", "pattern": "^[a-z0-9_.-]{1,64}=.{0,256}$"}}
    ),
]
RawObject = Annotated[Any, PlainValidator(_read_object), WithJsonSchema({"type": "object"})]
"""An object whose bytes stay as they were written."""
DeliveryStateName = Literal["pending", "retrying", "succeeded", "failed", "cancelled"]
EndpointStateName = Literal["active", "paused", "disabled"]
RoleName = Literal["viewer", "operator", "admin"]
LabelFilter = dict[str, str | list[str]]
