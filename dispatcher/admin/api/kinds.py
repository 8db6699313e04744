"""Kinds of values in requests and answers: how each is read, and how OpenAPI describes it."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from dispatcher.admin.operations.objects import JsonText, limit_problems
from dispatcher.core.limits import EVENT_DATA_BYTES_MAX
from dispatcher.core.printable import is_text

Problems = list[tuple[str, str]]
_Value = TypeVar("_Value")

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
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "literal_error": "must be one of {expected}",
    "enum": "must be one of {expected}",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:.15g}",
    "finite_number": "must be a finite number",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "dict_type": "must be an object",
    "list_type": "must be a list",
    "model_type": "must be an object",
}
"""What a person reads in place of the validator's own words; names in braces are of its context."""
NOW: Final = "now"
"""What validators find the time under, in their context."""
_JUDGED: Final = "judged"
"""The type of a fault that one of our own rules found; it may hold several."""


class Given(BaseModel):
    """What a request gives: frozen, strict, and closed to unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Shown(BaseModel):
    """What an answer holds; it describes, and is not run for each answer."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def faults_of(error: ValidationError) -> list[tuple[str, str]]:
    """Returns every fault as (field, message)."""
    faults: list[tuple[str, str]] = []
    for fault in error.errors(include_url=False, include_input=False):
        place, context = fault["loc"], fault.get("ctx", {})
        if fault["type"] == _JUDGED:
            faults += [(_path(*place[:-1], path), words) for path, words in context["problems"]]
            continue
        words = FAULTS.get(fault["type"])
        if words is None:
            words = fault["msg"].removeprefix("Value error, ")
        elif "expected" in context:
            words = words.format(expected=context["expected"].replace("'", ""))
        else:
            words = words.format(**context)
        faults.append((_path(*place), words))
    return faults


def judged_by(judge: Callable[[Any], Problems]) -> AfterValidator:
    """Returns a validator that tells all that a rule of the operations finds.

    The operation applies the same rule; here it is told together with what else is wrong with the
    request. The rule names the field itself.
    """

    def check(value: _Value) -> _Value:
        if value is not None:
            refuse(judge(value))
        return value

    return AfterValidator(check)


def refuse(problems: Problems) -> None:
    """Fails a validator with these faults, if there are any."""
    if problems:
        raise PydanticCustomError(_JUDGED, "see problems", {"problems": problems})


def _path(*parts: str | int) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return path.removeprefix(".")


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


def _read_limit(value: object) -> int:
    number = _read_number(value)
    refuse(limit_problems(number))
    return number


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
    if not isinstance(value, JsonText) or value.text[:1] != "{":
        raise ValueError("must be an object")
    if len(value.text.encode()) > EVENT_DATA_BYTES_MAX:
        raise ValueError(f"must have at most {EVENT_DATA_BYTES_MAX} bytes")
    return value


Time = Annotated[
    datetime,
    BeforeValidator(read_time),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-05-29T14:32:11Z"]}),
]
"""A time in a request."""
TimeText = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""A time in an answer: RFC 3339 in UTC with microseconds and `Z`."""
Text = Annotated[str, Field(max_length=256), BeforeValidator(_read_text)]
QueryTruth = Annotated[bool, PlainValidator(_read_truth), WithJsonSchema({"type": "boolean"})]
QueryLimit = Annotated[
    int,
    PlainValidator(_read_limit),
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
