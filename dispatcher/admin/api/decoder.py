"""Decodes a request's body: a JSON object, split into its members, in steps of at most 5 ms.

msgspec validates the whole body and splits it without building what is inside, so `data` keeps its
bytes. Invariants:

* No step holds the event loop for longer than 5 ms; a caller runs other tasks between two steps.
* Brackets are nested at most `DEPTH_MAX` deep. Outside of `data` there are at most `VALUES_MAX` values.
* A repeated name is an error, except inside `data`, which belongs to the producer.
* No value is lost or rounded on the way: numbers and escapes inside `data` are never converted.

The figures are in docs/adr/0053.
"""

import json
import re
from collections.abc import Generator, Iterator, Mapping
from itertools import accumulate
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from dispatcher.admin.api.problems import ProblemError
from dispatcher.admin.resources.serialization import JsonText
from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.printable import is_text
from dispatcher.core.problems import Problem, problem

DEPTH_MAX: Final = 64
MEMBERS_MAX: Final = 64
"""Names of the outer object; no route knows a third as many."""
VALUES_MAX: Final = 3_000
"""Values outside of `data`. A valid endpoint has at most 2,600 (20 label filters of 100 values, 500 event types)."""
CONTAINERS_MAX: Final = 350_000
"""Lists and objects of a body, where every second list directly inside a list counts twice.

A flat list of a mebibyte has as many. In towers of lists each one costs msgspec half as much again.
"""
NUMBER_CHARACTERS_MAX: Final = 400
"""Digits of a number outside of `data`; the largest float has 309."""
SLICE_BYTES: Final = 16 * 1024
KEPT_AS_TEXT: Final = frozenset({"data"})

_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
"""A bracket as a step down (1) or up (-1)."""
_POSITION: Final = re.compile(r"(?:JSON is malformed: )?(.*?)(?: \(byte (\d+)\))?", re.DOTALL)
BACKSLASH: Final = ord("\\")

Result = TypeVar("Result")
Steps = Generator[None, None, Result]
"""A computation that yields between two steps."""


class _Name:
    """A member's name. Two equal ones are different keys, so that msgspec keeps a repeated member."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


_SMALL: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_SMALL_PAIRS: Final = msgspec.json.Decoder(
    dict[_Name, msgspec.Raw], dec_hook=lambda _, text: _Name(text)
)
_TEXT: Final = msgspec.json.Decoder(str)


class _Shape(NamedTuple):
    """How deep brackets are nested, and how many values there are."""

    depth: int
    values_count: int


def decode_body(raw: bytes) -> Steps[Mapping[str, Any]]:
    """Return the members of a JSON object: values, with `data` as a `JsonText`.

    Raises:
        ProblemError: the body is not a JSON object, or exceeds a bound.
        InvalidRequestError: a name is repeated, or a text has a character that Postgres cannot store.
    """
    if len(raw) <= SLICE_BYTES and (small := _decode_small(raw)) is not None:
        return small
    if raw.count(b"[") + raw.count(b"{") + raw.count(b"[[") > CONTAINERS_MAX:
        raise ProblemError(
            400, f"The body has too many lists and objects. Send at most {CONTAINERS_MAX:,}."
        )
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise ProblemError(
            400, f"The body is not UTF-8: byte {error.start} is invalid. Encode it as UTF-8."
        ) from None
    yield
    pairs = yield from _split(raw)
    yield
    members: dict[str, Any] = {}
    repeated: dict[str, None] = {}
    values_count = 0
    for name, value in pairs:
        if name in members:
            repeated[name] = None
        shape = yield from _measure(value)
        if shape.depth >= DEPTH_MAX:
            raise _too_deep()
        if name in KEPT_AS_TEXT:
            members[name] = JsonText(str(value, "utf-8"), len(value))
            yield
            continue
        values_count += shape.values_count
        if values_count > VALUES_MAX:
            raise ProblemError(
                400, f"The body has too many values outside of data. Send at most {VALUES_MAX:,}."
            )
        members[name] = _value(value, repeated)
        yield
    problems = [problem(name, "duplicate") for name in repeated]
    for name, value in members.items():
        problems += _text_problems(name, value)
    if problems:
        raise InvalidRequestError(problems)
    return members


def _decode_small(raw: bytes) -> dict[str, Any] | None:
    """Return the members of an ordinary small body, in one step of some 3 µs instead of 70.

    None: the body is not valid, or comes close to a bound; the thorough way decides. Brackets and commas
    are counted with those in strings, which can only exceed the true figures.

    A body that is exactly as long as its different members need repeats no name. Any other one has
    blanks, escaped names or a repeated name, and its names are counted.
    """
    if raw.count(b"[") + raw.count(b"{") >= DEPTH_MAX:
        return None
    if raw.count(b",") >= VALUES_MAX - DEPTH_MAX - MEMBERS_MAX:
        return None
    members: dict[str, Any] = {}
    size = 1  # two braces; each member has two quotes, a colon and a comma, the last one has none
    try:
        if not raw.isascii():
            raw.decode()
        pairs = _SMALL.decode(raw)
        if len(pairs) > MEMBERS_MAX:
            return None
        for key, value in pairs.items():
            text = bytes(value)
            size += len(key) + len(text) + 4
            if key in KEPT_AS_TEXT:
                members[key] = JsonText(text.decode(), len(text))
            elif text[:1] == b'"':
                members[key] = _TEXT.decode(text)
                if BACKSLASH in text and not is_text(members[key]):
                    return None
            else:
                repeated: dict[str, None] = {}
                members[key] = _value(memoryview(text), repeated)
                if repeated or _text_problems(key, members[key]):
                    return None
        if len(raw) != size and len(_SMALL_PAIRS.decode(raw)) != len(pairs):
            return None
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError, ProblemError):
        return None
    return members


def _split(raw: bytes) -> Steps[list[tuple[str, memoryview]]]:
    """Return the outer object's names and the bytes of their values."""
    try:
        return _pairs(raw)
    except msgspec.DecodeError as error:
        if b"\\ud" not in raw and b"\\uD" not in raw:
            raise _malformed(raw, error) from None
    yield
    # msgspec rejects half a surrogate pair, which JSON allows and `data` may have. Hidden behind bytes
    # that UTF-8 never has, such an escape passes, and every position stays the same.
    hidden = []
    for piece in _slices(memoryview(raw)):
        hidden.append(
            piece.replace(b"\\\\", b"\xfe\xfe")
            .replace(b"\\ud", b"\xffud")
            .replace(b"\\uD", b"\xffuD")
        )
        yield
    try:
        pairs = _pairs(b"".join(hidden))
    except msgspec.DecodeError as error:
        raise _malformed(raw, error) from None
    yield
    shown = []
    for name, value in pairs:
        pieces = []
        for start in range(0, len(value), SLICE_BYTES):
            piece = bytes(value[start : start + SLICE_BYTES])
            pieces.append(piece.replace(b"\xff", b"\\").replace(b"\xfe", b"\\"))
            yield
        shown.append((name, memoryview(b"".join(pieces))))
    return shown


def _pairs(raw: bytes) -> list[tuple[str, memoryview]]:
    names_count = 0

    def name_of(_: type, text: str) -> _Name:
        nonlocal names_count
        names_count += 1
        if names_count > MEMBERS_MAX:
            raise ProblemError(400, f"The body has too many names. Send at most {MEMBERS_MAX}.")
        return _Name(text)

    decoder = msgspec.json.Decoder(dict[_Name, msgspec.Raw], dec_hook=name_of)
    try:
        return [(name.text, memoryview(value)) for name, value in decoder.decode(raw).items()]
    except RecursionError:
        raise _too_deep() from None
    except UnicodeDecodeError:  # of a name with half a surrogate pair
        raise ProblemError(400, "A name in the body is not valid text. Correct it.") from None


def _slices(value: memoryview) -> Iterator[bytes]:
    """Yield the bytes in slices that divide no escape."""
    start = 0
    while start < len(value):
        end = min(start + SLICE_BYTES, len(value))
        piece = bytes(value[start:end])
        while end < len(value) and (
            _ends_in_escape(piece) or (piece.endswith(b"u") and _ends_in_escape(piece[:-1]))
        ):
            piece += bytes(value[end : end + 1])
            end += 1
        yield piece
        start = end


def _ends_in_escape(piece: bytes) -> bool:
    return (len(piece) - len(piece.rstrip(b"\\"))) % 2 == 1


def _measure(value: memoryview) -> Steps[_Shape]:
    """Return the shape of valid JSON, read without its strings."""
    depth = deepest = in_string = 0
    values_count = 1
    for piece in _slices(value):
        if BACKSLASH in piece:
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")  # noqa: PLW2901 -- the same slice
        parts = piece.split(b'"')
        outside = b"".join(parts[in_string::2])
        in_string = (in_string + len(parts) - 1) % 2
        values_count += outside.count(b",") + outside.count(b"[") + outside.count(b"{")
        steps = outside.translate(_STEPS, _NO_BRACKETS)
        *depths, depth = accumulate(memoryview(steps).cast("b"), initial=depth)
        deepest = max(deepest, depth, *depths) if depths else deepest
        if deepest >= DEPTH_MAX:
            raise _too_deep()
        yield
    return _Shape(deepest, values_count)


def _value(value: memoryview, repeated: dict[str, None]) -> Any:  # noqa: ANN401 -- any JSON
    """Return what the bytes mean; `repeated` gets the names that an object has twice."""

    def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            repeated.update((name, None) for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]  # None: not seen before
        return found

    try:
        # The standard library's: msgspec and orjson keep the last of repeated names and report none.
        return json.loads(
            str(value, "utf-8"), parse_int=_whole, parse_float=_real, object_pairs_hook=object_of
        )
    except json.JSONDecodeError as error:  # a malformed \u escape, which was hidden from msgspec
        raise ProblemError(
            400, f"The body is not valid JSON: {error.msg}. Correct the escape."
        ) from None


def _whole(digits: str) -> int | float:
    """Return a whole number; one of more than 64 bits is a float, which is beyond every bound."""
    return int(digits) if len(digits) <= 20 else _real(digits)  # noqa: PLR2004 -- 64 bits have 19 digits


def _real(digits: str) -> float:
    if len(digits) > NUMBER_CHARACTERS_MAX:
        raise ProblemError(
            400, f"A number in the body is too long. Use at most {NUMBER_CHARACTERS_MAX} digits."
        )
    return float(digits)


def _too_deep() -> ProblemError:
    return ProblemError(
        400, f"The body is nested too deep. Nest brackets at most {DEPTH_MAX} levels deep."
    )


def _malformed(raw: bytes, error: msgspec.DecodeError) -> ProblemError:
    """Return the problem with its place, as people count lines and columns."""
    match = _POSITION.fullmatch(str(error))
    reason, position = (str(error), None) if match is None else match.groups()
    if isinstance(error, msgspec.ValidationError):
        return ProblemError(400, "The body is not a JSON object. Send an object.")
    before = raw if position is None else raw[: int(position)]
    line = before.count(b"\n") + 1
    column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
    return ProblemError(
        400, f"The body is not valid JSON: {reason} at line {line}, column {column}. Correct it."
    )


def _text_problems(path: str, value: object) -> list[Problem]:
    """List the texts that Postgres cannot store: with NUL or half a surrogate pair."""
    match value:
        case str():
            return [] if is_text(value) else [problem(path, "invalid_text")]
        case list():
            return [
                found
                for index, item in enumerate(value)
                for found in _text_problems(f"{path}[{index}]", item)
            ]
        case dict():
            return [
                found
                for name, item in value.items()
                for found in (
                    _text_problems(f"{path}.{name}", item)
                    if is_text(name)
                    else [problem(path, "invalid_text")]
                )
            ]
        case _:
            return []
