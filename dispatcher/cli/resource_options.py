"""Options of commands, made from the fields of resources.

`@takes(Model)` gives a command one option for each field of the model that has an `Option`. The
command receives the fields that were given as one mapping, `fields`, with the API's names and values.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

import typer
from pydantic import BaseModel

from dispatcher.admin.resources.fields import Option, Reading, metadata_of
from dispatcher.cli.values import (
    NONE,
    coming_moment,
    moment,
    number,
    or_referenced,
    pairs,
    secret_text,
    single_pairs,
    text_or_file,
)

Fields = Mapping[str, Any]
_LISTS: Final = frozenset({Reading.TEXTS, Reading.NUMBERS, Reading.HEADERS, Reading.LABELS})


def takes(model: type[BaseModel]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that replaces a command's parameter `fields` by a model's options."""
    options = metadata_of(model, Option)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)

        @functools.wraps(command)
        def run(**arguments: Any) -> None:  # noqa: ANN401 -- as typer read them
            given = {name: arguments.pop(name) for name in options}
            command(fields=_read(options, given), **arguments)

        own = [
            one.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for name, one in signature.parameters.items()
            if name != "fields"
        ]
        made = [_parameter(model, name, option) for name, option in options.items()]
        # Required options first, then the optional ones, then the command's own.
        parameters = sorted(
            (*own[: _leading(own)], *made, *own[_leading(own) :]),
            key=lambda one: one.default is not inspect.Parameter.empty,
        )
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # typer reads it
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return decorate


def _leading(own: list[inspect.Parameter]) -> int:
    """Return how many of a command's own parameters come before the options: context and arguments."""
    return sum(one.default is inspect.Parameter.empty for one in own)


def _parameter(model: type[BaseModel], name: str, option: Option) -> inspect.Parameter:
    field = model.model_fields[name]
    kind: Any = list[str] if option.reads in _LISTS else str
    if option.reads is Reading.SWITCH:
        kind = bool
    is_limit = isinstance(field.default, int) and not isinstance(field.default, bool)
    if is_limit:
        kind = int
    default: Any = inspect.Parameter.empty
    if not field.is_required():
        default = field.default if is_limit else None
        kind = kind if is_limit else kind | None
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[
            kind,
            typer.Option(option.name_of(name), metavar=option.metavar, help=option.help),
        ],
    )


def _read(options: Mapping[str, Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that were given, as the API takes them."""
    return {
        name: _value(given[name], options[name].reads, options[name].name_of(name))
        for name in options
        if given[name] is not None
    }


def _value(value: Any, reads: Reading, option: str) -> Any:  # noqa: ANN401 -- as the field is
    match reads:
        case Reading.REFERENCE:
            return or_referenced(value, option)
        case Reading.SECRET:
            return None if value == NONE else secret_text(value, option)
        case Reading.FILE:
            return None if value == NONE else text_or_file(value, option)
        case Reading.NUMBER:
            return number(value, option)
        case Reading.NUMBERS:
            numbers = [number(one, option) for one in value]
            return None if numbers == [None] else numbers
        case Reading.HEADERS:
            headers = {} if value == [NONE] else single_pairs(value, option)
            return {name: or_referenced(one, option) for name, one in headers.items()}
        case Reading.LABELS:
            return {} if value == [NONE] else pairs(value, option)
        case Reading.PAST:
            return moment(value, option)
        case Reading.FUTURE:
            return coming_moment(value, option)
        case _:
            return value
