"""Decode a batch of events: a JSON list, or one JSON object per line.

A batch is divided at the boundaries of its events first, and each event is decoded like a body of its own.
A body that cannot be divided or parsed is rejected as a whole, before anything is published.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from dispatcher.admin.api.decoder import BACKSLASH, Steps, decode_body
from dispatcher.admin.api.problems import ProblemError
from dispatcher.core.errors import InvalidRequestError

BATCH_EVENTS_MAX: Final = 1_000
EVENT_BYTES_MAX: Final = 1024 * 1024 + 64 * 1024
BOUNDARIES_MAX: Final = 350_000
"""Objects that follow another one in a list; a body can hold five million, of 2 µs each."""
WINDOW_BYTES: Final = 64 * 1024
_BLANKS: Final = b" \t\r\n"
_BOUNDARY: Final = re.compile(rb"\}[ \t\r\n]*,[ \t\r\n]*\{")
Batch = list[Mapping[str, Any] | InvalidRequestError]
"""The members of each event, or the problems that decoding it has found."""


def decode_events(raw: bytes, *, lines: bool) -> Steps[Batch]:
    """Return the events of a JSON list, or of one JSON object per line.

    Raises:
        ProblemError: the body is neither, or exceeds a bound.
    """
    events: Batch = []
    for piece in _lines(raw) if lines else _elements(raw):
        if piece is None:
            yield
            continue
        if len(events) == BATCH_EVENTS_MAX:
            raise ProblemError(
                413, f"The batch has too many events. Send at most {BATCH_EVENTS_MAX:,}."
            )
        if len(piece) > EVENT_BYTES_MAX:
            raise _event_too_large(len(events))
        yield
        try:
            events.append((yield from decode_body(piece)))
        except InvalidRequestError as error:
            events.append(error)
        except ProblemError as error:
            raise ProblemError(
                error.status, f"events[{len(events)}]: {error} Nothing was published."
            ) from None
    return events


def decode_batch(raw: bytes) -> Batch:
    """Return the events of a JSON list, or of one JSON object per line, in one go."""
    steps = decode_events(raw, lines=raw[:64].lstrip(_BLANKS)[:1] != b"[")
    while True:
        try:
            next(steps)
        except StopIteration as end:
            events: Batch = end.value
            return events


def _lines(raw: bytes) -> Iterator[bytes | None]:
    """Yield the lines that are not blank."""
    start = blanks = 0
    while start < len(raw):
        end = raw.find(b"\n", start, start + EVENT_BYTES_MAX + 1)
        if end < 0:
            end = min(len(raw), start + EVENT_BYTES_MAX + 1)
        piece = raw[start:end].strip(_BLANKS)
        start = end + 1
        if piece:
            yield piece
            continue
        blanks += 1
        if blanks > BATCH_EVENTS_MAX:
            raise ProblemError(400, "The batch has too many blank lines. Remove them.")


def _elements(raw: bytes) -> Iterator[bytes | None]:
    """Yield the objects of a JSON list, and None between two steps.

    An object of the list ends where a closing and an opening brace surround a comma, outside of strings
    and of all brackets. Whether the pieces are objects is for their decoder to decide.
    """
    text = raw.strip(_BLANKS)
    end = len(text) - 1
    if not text.endswith(b"]") or end < 1:
        raise ProblemError(
            400, "The body is not valid JSON: the list has no end. Nothing was published."
        )
    if text.find(b"{", 1, end) < 0:
        if end > WINDOW_BYTES or text[1:end].strip(_BLANKS):
            raise ProblemError(400, "The body is not a list of JSON objects. Send objects.")
        return
    start = counted = position = 1
    depth = in_string = boundaries = 0
    while True:
        match = _BOUNDARY.search(text, position, min(position + WINDOW_BYTES, end))
        if match is None:
            if position + WINDOW_BYTES >= end:
                break
            # A boundary may begin with the last brace of this window.
            position += WINDOW_BYTES
            brace = text.rfind(b"}", position - WINDOW_BYTES, position)
            if brace > position - WINDOW_BYTES // 2:
                position = brace
            if position - start > 2 * EVENT_BYTES_MAX:
                raise ProblemError(413, "An event of the batch is too large. Send smaller events.")
            yield None
            continue
        boundaries += 1
        if boundaries > BOUNDARIES_MAX:
            raise ProblemError(
                400, "The batch has too many objects. Send fewer events, or one per line."
            )
        position = match.start() + 1
        opened, in_string = _brackets(text[counted:position], in_string)
        depth += opened
        counted = position
        if depth == 0 and not in_string:
            yield text[start:position]
            start = counted = position = match.end() - 1
        elif boundaries % 100 == 0:
            yield None
    yield text[start:end].strip(_BLANKS)


def _brackets(piece: bytes, in_string: int) -> tuple[int, int]:
    """Return how many more brackets a piece opens than it closes, and whether it ends in a string."""
    if BACKSLASH in piece:
        piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
    parts = piece.split(b'"')
    outside = b"".join(parts[in_string::2])
    opened = outside.count(b"{") + outside.count(b"[") - outside.count(b"}") - outside.count(b"]")
    return opened, (in_string + len(parts) - 1) % 2


def _event_too_large(position: int) -> ProblemError:
    return ProblemError(
        413,
        f"events[{position}]: The event is too large. Send at most {EVENT_BYTES_MAX:,} bytes for each."
        " Nothing was published.",
    )
