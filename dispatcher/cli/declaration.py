"""Declarations of endpoints as files: TOML or JSON, told by the name's end; and the secrets they refer to."""

import codecs
import json  # noqa: TID251 -- orjson does not tell names that are given twice
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from dispatcher.core.errors import InvalidRequestError

BYTES_MAX: Final = 16_777_216
KEY: Final = "endpoints"


class Declaration(NamedTuple):
    """What a file declares, unjudged, and what is wrong with the file itself: told with what is wrong inside."""

    endpoints: list[Any]
    problems: list[tuple[str, str]]


def read(path: Path) -> Declaration:
    """Returns the declared endpoints of a file.

    Raises:
        InvalidRequestError: the file cannot be read, or is not what its name says.
    """
    try:
        content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise _wrong(path, f"cannot be read: {error.strerror}") from None
    if len(content) > BYTES_MAX:
        raise _wrong(path, f"has more than {BYTES_MAX} bytes")
    twice: list[str] = []
    try:
        match path.suffix:
            case ".toml":  # refuses a name that is given twice by itself
                document: Any = tomllib.loads(content.decode())
            case ".json":
                document = orjson.loads(content)
                twice = _given_twice(content)
            case _:
                raise _wrong(path, "must end in .toml or .json")
    except (ValueError, RecursionError) as error:  # both parsers' errors are ValueErrors
        raise _wrong(path, f"is not {path.suffix[1:].upper()}: {error}") from None
    if not isinstance(document, dict):
        raise _wrong(path, f"must be an object with the key {KEY}")
    problems = [(str(path), f"gives {name!r} twice in one object") for name in twice]
    problems += [(str(path), f"knows no key {key!r}, only {KEY}") for key in document if key != KEY]
    endpoints = document.get(KEY, [])
    if KEY not in document or not isinstance(endpoints, list):
        problems.append((str(path), f"must have the key {KEY}, a list of endpoints"))
        raise InvalidRequestError(problems)
    return Declaration(list(endpoints), problems)


def _given_twice(content: bytes) -> list[str]:
    """Returns the names that come again in an object of a JSON text: which of the two is meant is anybody's guess."""
    twice: dict[str, None] = {}

    def look(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                twice[name] = None
            seen.add(name)

    # No digits are turned into a number: only names matter.
    json.loads(content, object_pairs_hook=look, parse_int=str, parse_float=str)
    return list(twice)


def _wrong(path: Path, message: str) -> InvalidRequestError:
    return InvalidRequestError([(str(path), message)])


class Resolver:
    """Finds secrets by reference: `env:NAME`, or `file:PATH` beside the declaration."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = environ

    def __call__(self, reference: str) -> str:
        """Returns the secret; one line break at the end of a file is not part of it.

        Raises:
            ValueError: there is none; the text says where it was looked for.
        """
        kind, _, name = reference.partition(":")
        if kind == "env":
            found = self._environ.get(name)
            if not found:
                raise ValueError(f"the variable {name} is not set")
            return found
        try:
            text = (self._folder / name).read_text(encoding="utf-8-sig")
        except OSError as error:
            raise ValueError(
                f"the file {self._folder / name} cannot be read: {error.strerror}"
            ) from None
        except UnicodeDecodeError:
            raise ValueError(f"the file {self._folder / name} is not UTF-8 text") from None
        return text.removesuffix("\n").removesuffix("\r")


def write_toml(endpoints: Sequence[Mapping[str, Any]]) -> str:
    """Returns a declaration as TOML, which `read` takes."""
    lines = [
        "# The endpoints as they are. `dispatcher endpoint apply -f FILE --dry-run` shows what a change would do.",
        '# A secret is not here and stays as it is; to set one: secret = "env:NAME" or "file:PATH".',
    ]
    for endpoint in endpoints:
        lines += ["", f"[[{KEY}]]"]
        lines += [f"{field} = {_toml(value)}" for field, value in endpoint.items()]
    if not endpoints:
        lines += ["", f"{KEY} = []"]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:  # noqa: ANN401 -- as the field is
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return repr(value)
        case str():
            # A JSON string is a TOML one, but for the delete character.
            return orjson.dumps(value).decode().replace("\x7f", "\\u007f")
        case list() | tuple():
            return "[" + ", ".join(_toml(one) for one in value) + "]"
        case _:
            pairs = ", ".join(f"{_toml(name)} = {_toml(one)}" for name, one in value.items())
            return "{ " + pairs + " }"
