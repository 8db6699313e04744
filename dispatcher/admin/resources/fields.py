"""Field types of resources: how each is validated, described in OpenAPI, and shown to people.

All problems of a request are reported together. A validator of ours raises them as `Problem`s
(`refuse`), and `problems_of` turns the validator library's own errors into such as well.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticCustomError

from dispatcher.admin.resources.serialization import (
    JsonText,
    cursor_problems,
    limit_problems,
    time_text,
)
from dispatcher.core import codes
from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.limits import EVENT_DATA_BYTES_MAX
from dispatcher.core.matching import labels_problems
from dispatcher.core.printable import is_text
from dispatcher.core.problems import Problem, number_text, problem
from dispatcher.core.response_classes import CLASSES, EXACT

_Value = TypeVar("_Value")

_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
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
NOW: Final = "now"
"""The key of the present time in the context of validators."""
_MORE_WORDS_MAX: Final = 20
"""Words of a pattern that a text of several words may have."""
_PROBLEMS: Final = "problems"
"""The type of an error that one of our own rules raised; it may hold several problems."""
_CODES: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "missing": ("required", {}),
    "extra_forbidden": ("unknown_field", {}),
    "string_type": ("not_a_string", {}),
    "string_too_short": ("too_short", {"minimum": "min_length"}),
    "string_too_long": ("too_long", {"maximum": "max_length"}),
    "string_pattern_mismatch": ("invalid_format", {"pattern": "pattern"}),
    "too_short": ("too_few_items", {"minimum": "min_length"}),
    "too_long": ("too_many_items", {"maximum": "max_length"}),
    "literal_error": ("not_one_of", {"allowed": "expected"}),
    "enum": ("not_one_of", {"allowed": "expected"}),
    "bool_type": ("not_a_boolean", {}),
    "int_type": ("not_an_integer", {}),
    "int_from_float": ("not_an_integer", {}),
    "float_type": ("not_a_number", {}),
    "dict_type": ("not_an_object", {}),
    "list_type": ("not_a_list", {}),
    "model_type": ("not_an_object", {}),
}
"""Codes of the validator library's errors, and the names of their values in its context."""


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

    Each is a frozen dataclass, built from trusted rows without validation: a row that a newer
    replica wrote must be shown as well. ADR 0057 has the measurements.
    """

    __slots__ = ()
    __pydantic_config__ = ConfigDict(extra="forbid")


# How people give a field


class Reading(StrEnum):
    """How an option's text becomes the API's value."""

    TEXT = "text"
    TEXTS = "texts"
    ENDPOINT = "endpoint"
    """An endpoint's id, or its name, of which the command makes the id."""
    ENDPOINTS = "endpoints"
    EVENT_TYPE = "event_type"
    EVENT_TYPES = "event_types"
    PROFILE = "profile"
    REFERENCE = "reference"
    """A text that may be a credential, or `-`, `@FILE`, `env:NAME`."""
    SECRET = "secret"  # noqa: S105 -- a kind
    FILE = "file"
    """A text, or `@FILE`."""
    NUMBER = "number"
    NUMBERS = "numbers"
    HEADERS = "headers"
    LABELS = "labels"
    SWITCH = "switch"
    """`--name` or `--no-name`."""
    PAST = "past"
    """A time, or `15m` ago."""
    FUTURE = "future"
    """A time, or `90d` from now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """The command-line option of a field; its name is the field's, with hyphens, unless it has its own.

    An option with a name of its own also accepts the field's.
    """

    help: str
    metavar: str | None = None
    reads: Reading = Reading.TEXT
    name: str | None = None

    def name_of(self, field: str) -> str:
        """Return the name of the option, as people type it."""
        return self.names_of(field)[0]

    def names_of(self, field: str) -> list[str]:
        """Return the names of the option, the one that the help shows first."""
        names = dict.fromkeys((self.name or field.replace("_", "-"), field.replace("_", "-")))
        if self.reads is Reading.SWITCH:
            return [f"--{name}/--no-{name}" for name in names]
        return [f"--{name}" for name in names]


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a field that takes one or several of them, separated by commas."""

    allowed: tuple[str, ...]


class ControlKind(StrEnum):
    """What the console's form shows for a field."""

    LINE = "line"
    URL = "url"
    NUMBER = "number"
    WHOLE = "whole"
    DELAYS = "delays"
    HEADERS = "headers"
    LABELS = "labels"
    PEM = "pem"
    EXPRESSION = "expression"
    CHOICE = "choice"
    WORDS = "words"
    LINES = "lines"
    OPTIONAL = "optional"
    """A line that may be empty."""
    SECRET = "secret"  # noqa: S105 -- a kind
    """A text that is never shown again; empty: it stays as it is."""
    OWN = "own"
    """The form's template has markup for this field alone."""


class Section(StrEnum):
    """The part of the form that a control is in."""

    MAIN = "main"
    HEADERS = "headers"
    ADVANCED = "advanced"
    LIMITS = "limits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """The form control of a field; label and hint are keys of the console's translations."""

    kind: ControlKind
    section: Section = Section.MAIN
    label: str = ""
    hint: str = ""
    characters_max: int | None = None
    values: tuple[str, ...] = ()
    """Of a choice; the words for them are `<field>.<value>` of the console's translations."""


_Metadata = TypeVar("_Metadata", Option, Control)


def metadata_of(model: type[BaseModel], kind: type[_Metadata]) -> dict[str, _Metadata]:
    """Return the options or the controls of a model's fields, in order."""
    return {
        name: one
        for name, field in model.model_fields.items()
        for one in field.metadata
        if isinstance(one, kind)
    }


# Problems


def problems_of(error: ValidationError) -> list[Problem]:
    """Return every problem that a validation found."""
    problems: list[Problem] = []
    for one in error.errors(include_url=False):
        place, context = one["loc"], one.get("ctx", {})
        if one["type"] == _PROBLEMS:
            problems += [each.at(_path(*place[:-1], each.field)) for each in context["problems"]]
            continue
        code, names = _CODES.get(one["type"], ("invalid_value", {}))
        values: dict[str, Any] = {name: context[theirs] for name, theirs in names.items()}
        if code == "not_one_of":
            values["allowed"] = str(values["allowed"]).replace("'", "").replace(" or ", ", ")
            values["value"] = one["input"]
        elif code == "invalid_value":
            values["detail"] = one["msg"]
        problems.append(problem(_path(*place), code, **values))
    return problems


def checked_by(check: Callable[[Any], Sequence[Problem]]) -> AfterValidator:
    """Return a validator that reports all problems that a rule finds; the rule names the field."""

    def validate(value: _Value) -> _Value:
        if value is not None:
            refuse(check(value))
        return value

    return AfterValidator(validate)


def refuse(problems: Sequence[Problem]) -> None:
    """Fail a validator with these problems, if there are any."""
    if problems:
        raise PydanticCustomError(_PROBLEMS, "see problems", {"problems": problems})


def _refuse(info: ValidationInfo | str, code: str, **values: object) -> PydanticCustomError:
    field = info if isinstance(info, str) else str(info.field_name)
    problems = [problem(field, code, **values)]
    return PydanticCustomError(_PROBLEMS, "see problems", {"problems": problems})


def _path(*parts: str | int) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return path.removeprefix(".")


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
        raise _refuse(info, "invalid_time")
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
        raise _refuse(info, "impossible_time") from None


def _read_text(value: object, info: ValidationInfo) -> object:
    if isinstance(value, str) and not is_text(value):
        raise _refuse(info, "invalid_text")
    return value


def _read_truth(value: object, info: ValidationInfo) -> bool:
    if value in ("true", "false", True, False):
        return value in ("true", True)
    raise _refuse(info, "not_a_boolean")


def _read_limit(value: object, info: ValidationInfo) -> int:
    if not _NUMBER.fullmatch(str(value)):
        raise _refuse(info, "not_an_integer")
    limit = int(str(value))
    refuse(limit_problems(limit))
    return limit


def _read_labels(value: object, info: ValidationInfo) -> dict[str, str]:
    """Return the labels of `name=value` texts, each name once."""
    labels: dict[str, str] = {}
    for text in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
        name, equals, wanted = str(text).partition("=")
        if not equals or not name:
            raise _refuse(info, "invalid_label_pair")
        if name in labels:
            raise _refuse(info, "duplicate")
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
            raise _refuse(info, "not_a_string")
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
        raise _refuse(info, "not_an_object")
    if value.bytes_count > EVENT_DATA_BYTES_MAX:
        raise _refuse(info, "too_many_bytes", maximum=EVENT_DATA_BYTES_MAX)
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


class PageQuery(Request):
    """A page of a list."""

    IS_FILTER: ClassVar[bool] = True

    limit: Annotated[QueryLimit, Option(metavar="N", help="Items per page, 1 to 500.")] = 50
    cursor: Annotated[
        Cursor | None, Option(metavar="CURSOR", help="The cursor of the next page.")
    ] = None
