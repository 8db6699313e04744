"""Options of commands, made from the fields of resources.

`@takes(Model)` gives a command one option for each field of the model that has an `Option`. The
command receives the fields that were given as one mapping, `fields`, with the API's names and values.

`none` clears a value: in a model that is not a filter, it stands for the field's default if that is null or empty.
An endpoint's name is an `EndpointName` in the mapping, of which `Session.resolved` makes an id.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dispatcher.admin.resources.base import Request
from dispatcher.admin.resources.fields import without_defaults
from dispatcher.admin.resources.presentation import Option, Reading, Words, metadata_of
from dispatcher.cli.completion import (
    Completer,
    complete_event_types,
    complete_names,
    complete_profiles,
    complete_words,
)
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
_LISTS: Final = frozenset(
    {
        Reading.TEXTS,
        Reading.NUMBERS,
        Reading.HEADERS,
        Reading.LABELS,
        Reading.ENDPOINTS,
        Reading.EVENT_TYPES,
    }
)
_METAVARS: Final[Mapping[Reading, str]] = {
    Reading.ENDPOINT: "NAME|ID",
    Reading.ENDPOINTS: "NAME|ID",
    Reading.EVENT_TYPE: "TYPE",
    Reading.EVENT_TYPES: "TYPE",
    Reading.PAST: "TIME",
    Reading.FUTURE: "TIME",
    Reading.NUMBER: "N",
}
_COMPLETERS: Final[Mapping[Reading, Completer]] = {
    Reading.ENDPOINT: complete_names("endpoint"),
    Reading.ENDPOINTS: complete_names("endpoint"),
    Reading.EVENT_TYPE: complete_event_types,
    Reading.EVENT_TYPES: complete_event_types,
    Reading.PROFILE: complete_profiles,
}


class EndpointName(str):
    """The name or the id of an endpoint, as it was typed."""

    __slots__ = ()


def takes(model: type[BaseModel]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that replaces a command's parameter `fields` by a model's options."""
    options = metadata_of(model, Option)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)

        @functools.wraps(command)
        def run(**arguments: Any) -> None:  # noqa: ANN401 -- as typer read them
            given = {name: arguments.pop(name) for name in options}
            command(fields=_read(model, options, given), **arguments)

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
    words = list(_words(field.annotation))
    is_list = option.reads in _LISTS or _takes_several(field.annotation)
    kind: Any = list[str] if is_list else str
    if option.reads is Reading.SWITCH:
        kind = bool
    if name == "limit":
        kind = int
    default: Any = inspect.Parameter.empty
    if option.is_optional or not field.is_required():
        default, kind = None, kind | None
    completer = complete_words(*words) if words else _COMPLETERS.get(option.reads)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[
            kind,
            typer.Option(
                *option.names_of(name),
                metavar=option.metavar or _METAVARS.get(option.reads),
                help=option.help,
                show_default=_default_text(model, field),
                autocompletion=completer,
            ),
        ],
    )


def _words(annotation: Any) -> Iterator[str]:  # noqa: ANN401 -- as typing has them
    """Yield the words that a field allows, if it allows only some."""
    if get_origin(annotation) is Literal:
        yield from (one for one in get_args(annotation) if isinstance(one, str))
        return
    if isinstance(annotation, Words):
        yield from annotation.allowed
    for one in get_args(annotation):
        yield from _words(one)


def _takes_several(annotation: Any) -> bool:  # noqa: ANN401 -- as typing has them
    return isinstance(annotation, Words) or any(map(_takes_several, get_args(annotation)))


def _default_text(model: type[BaseModel], field: FieldInfo) -> str | bool:
    """Return the default as the help shows it; a change has none, because an omitted field keeps its value."""
    is_change = model.model_config.get("json_schema_extra") is without_defaults
    default = field.default
    is_shown = isinstance(default, int | float) or (
        isinstance(default, str) and default not in {"", NONE}
    )
    return str(default) if is_shown and not isinstance(default, bool) and not is_change else False


def _read(
    model: type[BaseModel], options: Mapping[str, Option], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the fields that were given, as the API takes them."""
    return {
        name: _cleared(model, name)
        if given[name] in (NONE, [NONE]) and _can_be_cleared(model, name)
        else _value(given[name], option.reads, option.name_of(name))
        for name, option in options.items()
        if given[name] is not None
    }


def _can_be_cleared(model: type[BaseModel], name: str) -> bool:
    field = model.model_fields[name]
    is_filter = issubclass(model, Request) and model.IS_FILTER
    return not is_filter and not field.is_required() and field.default in (None, [], {})


def _cleared(model: type[BaseModel], name: str) -> Any:  # noqa: ANN401 -- as the field is
    """Return the value that `none` stands for: null, or an empty list or object."""
    return model.model_fields[name].get_default()


def _value(value: Any, reads: Reading, option: str) -> Any:  # noqa: ANN401 -- as the field is
    match reads:
        case Reading.ENDPOINT:
            return EndpointName(value)
        case Reading.ENDPOINTS:
            return [EndpointName(one) for one in value]
        case Reading.REFERENCE:
            return or_referenced(value, option)
        case Reading.SECRET:
            return secret_text(value, option)
        case Reading.FILE:
            return text_or_file(value, option)
        case Reading.NUMBER:
            return number(value, option)
        case Reading.NUMBERS:
            return [number(one, option) for one in value]
        case Reading.HEADERS:
            headers = single_pairs(value, option)
            return {name: or_referenced(one, option) for name, one in headers.items()}
        case Reading.LABELS:
            return pairs(value, option)
        case Reading.PAST:
            return moment(value, option)
        case Reading.FUTURE:
            return coming_moment(value, option)
        case _ if isinstance(value, list) and reads not in _LISTS:
            return ",".join(value)  # of a field that takes one or several words
        case _:
            return value
