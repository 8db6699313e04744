"""The types of fields that several resources have: how each is validated and described in OpenAPI."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import CoreSchema

from dispatcher.admin.resources.presentation import Words
from dispatcher.admin.resources.serialization import JsonText, cursor_problems, limit_problems
from dispatcher.admin.resources.validation import checked_by, refusal, refuse
from dispatcher.core import codes
from dispatcher.core.limits import EVENT_DATA_BYTES_MAX
from dispatcher.core.matching import labels_problems
from dispatcher.core.printable import is_text
from dispatcher.core.problems import Problem, number_text, problem
from dispatcher.core.response_classes import CLASSES, EXACT

_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_NUMBER: Final = re.compile(r"-?[0-9]{1,9}")
_MICROSECONDS: Final = 6
_TENANT: Final = re.compile(r"[a-z0-9_-]{1,64}")  # also a CHECK of the outbox
NAME_CHARACTERS_MAX: Final = 128
TEXT_CHARACTERS_MAX: Final = 256
TENANT_DEFAULT: Final = "default"
SEARCH_DESCRIPTION: Final = (
    "A text to find: an id, name=value or the value of a label, and any part of a type, a label, a payload and (for "
    "deliveries) an endpoint's name, whatever its case. Exact ids and labels come first, then the newest. A page may "
    "be short or empty although there is a next one: `searched_back_to` is how far back payloads were searched."
)
_MORE_WORDS_MAX: Final = 20
"""Words of a pattern that a text of several words may have."""


# Validators


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of a number, inclusive; a boolean, NaN and infinity are not numbers."""

    minimum: float
    maximum: float
    whole: bool = False

    def __get_pydantic_core_schema__(
        self, source: type, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Return the validator: it reports both bounds at once."""

        def validate(value: object, info: ValidationInfo) -> object:
            field = str(info.field_name)
            refuse(number_problems(value, field, self.minimum, self.maximum, whole=self.whole))
            return value

        return PlainValidator(validate).__get_pydantic_core_schema__(source, handler)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return the description for OpenAPI."""
        kind = "integer" if self.whole else "number"
        bounds = {"minimum": self.minimum, "maximum": self.maximum}
        shown = {name: int(one) if one == int(one) else one for name, one in bounds.items()}
        return {"type": kind, **shown}


def number_problems(
    value: object, field: str, minimum: float, maximum: float, *, whole: bool = False
) -> list[Problem]:
    """List the problems of a bounded number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return [problem(field, "not_an_integer" if whole else "not_a_number")]
    if whole and not isinstance(value, int):
        return [problem(field, "not_an_integer")]
    if not minimum <= value <= maximum:
        texts = {"minimum": number_text(minimum), "maximum": number_text(maximum)}
        return [problem(field, "out_of_range", value=value, **texts)]
    return []


def name_problems(value: object, field: str = "name") -> list[Problem]:
    """List the problems of a name that a person gives to an endpoint or a token."""
    if not isinstance(value, str):
        return [problem(field, "not_a_string")]
    if not value:
        return [problem(field, "too_short", minimum=1)]
    if len(value) > NAME_CHARACTERS_MAX:
        return [problem(field, "too_long", maximum=NAME_CHARACTERS_MAX)]
    if not value.isprintable() or value != value.strip():
        return [problem(field, "unprintable")]
    return []


def tenant_problems(value: object, field: str = "tenant") -> list[Problem]:
    """List the problems of a tenant's name."""
    if isinstance(value, str) and _TENANT.fullmatch(value):
        return []
    return [problem(field, "invalid_tenant", value=value)]


def read_time(value: object, info: ValidationInfo) -> datetime:
    """Return the time of an RFC 3339 text; digits beyond the microsecond are cut off."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value
    if not isinstance(value, str) or _TIME.fullmatch(value) is None:
        raise refusal(info, "invalid_time")
    text = value.upper()
    head, point, tail = text.partition(".")
    if point:
        digits = re.match("[0-9]+", tail)
        assert digits is not None  # noqa: S101 -- the pattern requires them
        zone = tail[digits.end() :]
        text = f"{head}.{digits[0][:_MICROSECONDS].ljust(_MICROSECONDS, '0')}{zone}"
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise refusal(info, "impossible_time") from None


def _read_text(value: object, info: ValidationInfo) -> object:
    if isinstance(value, str) and not is_text(value):
        raise refusal(info, "invalid_text")
    return value


def _read_truth(value: object, info: ValidationInfo) -> bool:
    if value in ("true", "false", True, False):
        return value in ("true", True)
    raise refusal(info, "not_a_boolean")


def _read_limit(value: object, info: ValidationInfo) -> int:
    if not _NUMBER.fullmatch(str(value)):
        raise refusal(info, "not_an_integer")
    limit = int(str(value))
    refuse(limit_problems(limit))
    return limit


def _read_labels(value: object, info: ValidationInfo) -> dict[str, str]:
    """Return the labels of `name=value` texts, each name once."""
    labels: dict[str, str] = {}
    for text in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
        name, equals, wanted = str(text).partition("=")
        if not equals or not name:
            raise refusal(info, "invalid_label_pair")
        if name in labels:
            raise refusal(info, "duplicate")
        labels[name] = wanted
    return labels


def _one_or_several(allowed: Sequence[str], more: str = "") -> Any:  # noqa: ANN401 -- an annotation
    """Return the type of a text of one or several of these words, separated by commas.

    The words are validated, and each is kept once, in the order of `allowed`. Words of the pattern `more` are
    allowed too, and follow.
    """
    fits = re.compile(more or "(?!)").fullmatch

    def read(value: object, info: ValidationInfo) -> str:
        field = str(info.field_name)
        if not isinstance(value, str):
            raise refusal(info, "not_a_string")
        words = [word.strip() for word in value.split(",")][: len(allowed) + _MORE_WORDS_MAX]
        refuse(
            [
                problem(field, "not_one_of", allowed=", ".join(allowed), value=word)
                for word in words
                if word not in allowed and not fits(word)
            ][:1]
        )
        others = sorted(set(words).difference(allowed))
        return ",".join([*(word for word in allowed if word in words), *others])

    word = "|".join([*allowed, *([more] if more else [])])
    schema = {
        "type": "string",
        "pattern": f"^({word})(,({word}))*$",
        "examples": [",".join(allowed[-2:])],
    }
    return Annotated[str, PlainValidator(read), WithJsonSchema(schema), Words(tuple(allowed))]


def _read_object(value: object, info: ValidationInfo) -> JsonText:
    if not isinstance(value, JsonText) or value.text[:1] != "{":
        raise refusal(info, "not_an_object")
    if value.bytes_count > EVENT_DATA_BYTES_MAX:
        raise refusal(info, "too_many_bytes", maximum=EVENT_DATA_BYTES_MAX)
    return value


def without_defaults(schema: dict[str, Any]) -> None:
    """Remove the defaults of a schema: a field that is left out keeps its value."""
    for described in schema["properties"].values():
        described.pop("default", None)


# Types

EndpointId = Annotated[str, Field(examples=["ep_01kat9zma1e4gbryhh3m9dq2yw"])]
DeliveryId = Annotated[str, Field(examples=["wh_01kat9zma1gk18t0mvx8z4q6re"])]
EventId = Annotated[str, Field(examples=["evt_2026_001234"])]
Time = Annotated[
    datetime,
    BeforeValidator(read_time),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-05-29T14:32:11Z"]}),
]
"""A time in a request."""
TimeText = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""A time in a response: RFC 3339 in UTC with microseconds and `Z`."""
Text = Annotated[str, Field(max_length=TEXT_CHARACTERS_MAX), BeforeValidator(_read_text)]
Tenant = Annotated[
    str,
    checked_by(tenant_problems),
    WithJsonSchema({"type": "string", "pattern": f"^{_TENANT.pattern}$"}),
]
Cursor = Annotated[Text, checked_by(cursor_problems)]
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
FilterLabels = Annotated[QueryLabels, checked_by(partial(labels_problems, field="label"))]
Labels = Annotated[
    dict[str, Any],
    checked_by(labels_problems),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "string"}}),
]
RawObject = Annotated[Any, PlainValidator(_read_object), WithJsonSchema({"type": "object"})]
"""An object whose bytes stay as they were written."""
JsonObject = Annotated[
    JsonText,
    PlainValidator(lambda value: value),
    WithJsonSchema({"type": "object", "additionalProperties": True}),
]
"""The same in a response."""
DeliveryStateName = Literal["pending", "retrying", "succeeded", "failed", "cancelled"]
EndpointSortName = Literal["created", "trouble"]
DeliveryStateNames = _one_or_several(codes.STATES)
ResponseClassNames = _one_or_several(tuple(CLASSES), EXACT)
EndpointStateName = Literal["active", "paused", "disabled"]
HealthName = Literal["healthy", "degraded", "down", "recovering"]
RoleName = Literal["viewer", "operator", "admin"]
LabelFilter = dict[str, str | list[str]]
