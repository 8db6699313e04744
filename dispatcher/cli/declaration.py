"""Declarations of endpoints in TOML or JSON files, and the secrets that they refer to."""

import codecs
import json  # noqa: TID251 -- orjson does not report repeated names
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson
import tomli_w

from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.problems import Problem, problem

BYTES_MAX: Final = 16_777_216
KEY: Final = "endpoints"
_HEAD: Final = """\
# The current endpoints. `dispatcher endpoint apply -f FILE --dry-run` shows the effect of a change.
# Secrets are not exported and are not changed. To set one: secret = "env:NAME" or "file:PATH".

"""


class Declaration(NamedTuple):
    """The contents of a file before validation, and the errors of the file itself; reported together."""

    endpoints: list[Any]
    problems: list[Problem]


def read(path: Path) -> Declaration:
    """Return the declared endpoints of a file.

    Raises:
        InvalidRequestError: the file cannot be read, or its format does not match its extension.
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
            case ".toml":  # rejects repeated names itself
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
    problems = [problem(f"{path}: {name}", "duplicate") for name in twice]
    problems += [problem(f"{path}: {key}", "unknown_field") for key in document if key != KEY]
    endpoints = document.get(KEY, [])
    if KEY not in document or not isinstance(endpoints, list):
        problems.append(problem(f"{path}: {KEY}", "not_a_list"))
        raise InvalidRequestError(problems)
    return Declaration(list(endpoints), problems)


def _given_twice(content: bytes) -> list[str]:
    """Return the names that are repeated within an object of a JSON text, because they are ambiguous."""
    twice: dict[str, None] = {}

    def look(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                twice[name] = None
            seen.add(name)

    # Numbers are not converted, because only names matter.
    json.loads(content, object_pairs_hook=look, parse_int=str, parse_float=str)
    return list(twice)


def _wrong(path: Path, message: str) -> InvalidRequestError:
    return InvalidRequestError([problem(str(path), "invalid_file", detail=message)])


class Resolver:
    """Resolves references to secrets: `env:NAME`, or `file:PATH` relative to the declaration."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = environ

    def __call__(self, reference: str) -> str:
        """Return the secret, without one line break at the end of a file.

        Raises:
            ValueError: there is none; the message names the source.
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
    """Return a declaration as TOML, which `read` accepts."""
    return _HEAD + tomli_w.dumps({KEY: list(endpoints)})
