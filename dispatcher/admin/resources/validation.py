"""Rules and errors of validation.

All problems of a request are reported together. A validator of ours raises them as `Problem`s
(`refuse`), and `problems_of` turns the errors of the validator library into such as well.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from pydantic import AfterValidator, ValidationError, ValidationInfo
from pydantic_core import PydanticCustomError

from dispatcher.core.problems import Problem, problem

_Value = TypeVar("_Value")
NOW: Final = "now"
"""The key of the present time in the context of validators."""
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
        raise _error(problems)


def refusal(info: ValidationInfo | str, code: str, **values: object) -> PydanticCustomError:
    """Return the error of one problem, for a validator to raise."""
    field = info if isinstance(info, str) else str(info.field_name)
    return _error([problem(field, code, **values)])


def _error(problems: Sequence[Problem]) -> PydanticCustomError:
    return PydanticCustomError(_PROBLEMS, "see problems", {"problems": problems})


def _path(*parts: str | int) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return path.removeprefix(".")
