"""Reads a request's body: bounded, JSON, an object; the text of each member stays at hand.

An event's `data` keeps its bytes, so members are cut out of the text instead of written anew. What
is always true: nothing is kept beyond the bound, whatever Content-Length says; brackets nest
`DEPTH_MAX` deep at most, and that is known before anything is parsed; a name given twice is refused
(which of the two is meant is anybody's guess), except inside `data`, which is the producer's; a body
that comes too slowly ends with 408. A client that waits to be asked for it (`Expect: 100-continue`) is
asked once its token, its size and its encoding are good. Ordinary data of a megabyte takes some 25 ms to cut out, the
most hostile some 250 ms on a busy machine: no body holds the event loop for long.
"""

import asyncio
import gc
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate
from json import JSONDecodeError, JSONDecoder
from typing import Any, Final, NamedTuple

from aiohttp import HttpVersion11, web

from dispatcher.admin.api.problems import ProblemError
from dispatcher.admin.api.turns import Turns
from dispatcher.admin.resources.serialization import JsonText
from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.printable import is_text
from dispatcher.core.problems import Problem, problem

BODY_BYTES_MAX: Final = 1024 * 1024
EVENT_BODY_BYTES_MAX: Final = 1024 * 1024 + 64 * 1024
DEPTH_MAX: Final = 64
MEMBERS_MAX: Final = 64
"""Names of the outer object; no route knows a third as many."""
READ_SECONDS_MAX: Final = 30.0
JSON_TYPES: Final = frozenset({"application/json", "application/merge-patch+json"})
KEPT_AS_TEXT: Final = frozenset({"data"})

# An unfinished string matches up to the end, so that no text is looked at twice.
_STRINGS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
"""A bracket as a step down (1) or up (-1)."""
_SPACE: Final = re.compile(r"[ \t\n\r]*")


class Body(NamedTuple):
    """The members of an object: values, with `data` as a `JsonText`."""

    members: Mapping[str, Any]


async def read_body(request: web.Request, turns: Turns, bytes_max: int = BODY_BYTES_MAX) -> Body:
    """Returns the members of the body; an empty body has none.

    Raises:
        ProblemError: too large, too slow, of another type, no JSON, or one of too many.
        InvalidRequestError: names are given twice, or hold what no text may.
    """
    length = request.content_length
    if length is not None and length > bytes_max:
        raise _too_large(bytes_max)
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise ProblemError(415, "send the body as it is, without Content-Encoding")
    async with turns.place(length):
        raw = await _read(request, bytes_max)
        if not raw:
            return Body({})
        if request.content_type not in JSON_TYPES:
            raise ProblemError(415, "send the body as Content-Type: application/json")
        return await turns.run(raw, parse_body)


def parse_body(raw: bytes) -> Body:
    """Returns the members of a JSON object.

    Raises:
        ProblemError: it is none. InvalidRequestError: as `read_body`.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProblemError(400, f"the body is not UTF-8: byte {error.start} is wrong") from None
    if is_too_deep(raw):
        raise ProblemError(400, f"the body nests deeper than {DEPTH_MAX} levels")
    twice: list[str] = []
    try:
        with _without_collector():
            members = _members(text, twice)
    except JSONDecodeError as error:
        raise ProblemError(
            400,
            f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}",
        ) from None
    except ValueError:  # NaN and Infinity, or a number of more digits than one may convert
        raise ProblemError(400, "the body is not JSON: a number in it is none") from None
    problems = [problem(name, "duplicate") for name in dict.fromkeys(twice)]
    for name, value in members.items():
        problems += _text_problems(name, value)
    if problems:
        raise InvalidRequestError(problems)
    return Body(members)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Lets no garbage collection begin: it would walk over half a million lists ten times (1.1 s to 0.1 s).

    What is parsed has no cycles, and nothing else runs meanwhile.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def is_too_deep(raw: bytes) -> bool:
    """Tells whether brackets nest deeper than `DEPTH_MAX`; wrong JSON is judged roughly."""
    steps = _STRINGS.sub(b"", raw).translate(_STEPS, _NO_BRACKETS)
    return max(accumulate(memoryview(steps).cast("b")), default=0) > DEPTH_MAX


async def _read(request: web.Request, bytes_max: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    _ask_for_it(request)
    try:
        async with asyncio.timeout(READ_SECONDS_MAX):
            async for chunk in request.content.iter_any():
                size += len(chunk)
                if size > bytes_max:
                    raise _too_large(bytes_max)
                chunks.append(chunk)
    except TimeoutError:
        raise ProblemError(
            408, f"the body did not come within {READ_SECONDS_MAX:.0f} s", close=True
        ) from None
    except web.RequestPayloadError:
        raise ProblemError(400, "the body is cut off or wrongly framed", close=True) from None
    return b"".join(chunks)


def _ask_for_it(request: web.Request) -> None:
    """Tells a client that waits to be asked for the body that it is wanted (RFC 9110, 10.1.1)."""
    waits = request.headers.get("Expect", "").lower() == "100-continue"
    if waits and request.version >= HttpVersion11 and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _too_large(bytes_max: int) -> ProblemError:
    return ProblemError(413, f"the body must have at most {bytes_max} bytes", close=True)


def _members(text: str, twice: list[str]) -> dict[str, Any]:
    """Walks over the members of the outer object; `twice` gets the names that come again."""
    plain = JSONDecoder(parse_constant=_refuse, parse_int=_whole)
    strict = JSONDecoder(
        parse_constant=_refuse,
        parse_int=_whole,
        object_pairs_hook=lambda pairs: _object(pairs, twice),
    )
    # The data's numbers are never looked at: no digits are turned into anything.
    untouched = JSONDecoder(parse_constant=_refuse, parse_int=str, parse_float=str)
    members: dict[str, Any] = {}
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        plain.raw_decode(text, at)
        raise JSONDecodeError("an object is expected", text, at)
    at = _skip(text, at + 1)
    while text[at : at + 1] != "}":
        if text[at : at + 1] != '"':
            raise JSONDecodeError("a name in double quotes is expected", text, at)
        name, at = plain.raw_decode(text, at)
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise JSONDecodeError("a colon is expected", text, at)
        at = _skip(text, at + 1)
        if name in members:
            twice.append(name)
        elif len(members) >= MEMBERS_MAX:
            raise ProblemError(400, f"the body has more than {MEMBERS_MAX} names")
        if name in KEPT_AS_TEXT:
            _, end = untouched.raw_decode(text, at)
            members[name] = JsonText(text[at:end])
        else:
            members[name], end = strict.raw_decode(text, at)
        at = _skip(text, end)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
            if text[at : at + 1] == "}":
                raise JSONDecodeError("a name in double quotes is expected", text, at)
        elif text[at : at + 1] != "}":
            raise JSONDecodeError("a comma or a closing brace is expected", text, at)
    at = _skip(text, at + 1)
    if at != len(text):
        raise JSONDecodeError("the end is expected", text, at)
    return members


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _object(pairs: list[tuple[str, Any]], twice: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            twice.append(name)
        found[name] = value
    return found


def _refuse(_: str) -> None:
    raise ValueError("no JSON")


def _whole(digits: str) -> int | float:
    """Reads a whole number; one too long for that is a float, and so out of any bound."""
    return int(digits) if len(digits) <= 20 else float(digits)  # noqa: PLR2004 -- 64 bits have 19 digits


def _text_problems(path: str, value: object) -> list[Problem]:
    """Lists texts that Postgres has no room for: with NUL or half a surrogate pair."""
    match value:
        case str():
            return [] if is_text(value) else [problem(path, "invalid_text")]
        case list():
            return [
                found
                for index, one in enumerate(value)
                for found in _text_problems(f"{path}[{index}]", one)
            ]
        case dict():
            return [
                found
                for name, one in value.items()
                for found in (
                    _text_problems(f"{path}.{name}", one)
                    if is_text(name)
                    else [problem(path, "invalid_text")]
                )
            ]
        case _:
            return []
