"""Parse successive HTTP/1.1 responses from bytes with httptools, within limits.

What it is. The part of an exchange without a socket: bytes go into `feed`, and the fields contain the
state of the response. A reader belongs to one connection, because the parser does.

By itself, the parser would also accept RTSP, ICE, HTTP/0.9 and HTTP/2.0, so the status line of every head
is checked again here. Repeated `Content-Length` headers that agree (RFC 9112, section 6.3) are
merged before the parser reads them; such a head is buffered until it is complete.

Invariants. `status` is set exactly when the head of a final response is complete, and never
changes afterwards: later bytes (a body after 204, surplus bytes, a broken chunk; R8, R9) cannot
invalidate it. Head, header line, header count, interim responses, body and raw bytes are limited, and
`feed` returns at once when a limit is reached, so the connection reads no further. Nothing is
decompressed. Of a failure, the first bytes of headers and body are kept; of a success neither is, unless
`keeps_successes` is set.

Most receivers respond to all requests of a second with the same bytes. A flawless success that equals the
previous one of its connection is not parsed again: between two responses the parser has no state, so it
would come to the same result (ADR 0126).
"""

import re
from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from dispatcher.core import limits
from dispatcher.core.limits import HEAD_BYTES_MAX, HEADER_COUNT_MAX, HEADER_LINE_BYTES_MAX
from dispatcher.core.model import Flag
from dispatcher.core.printable import escape

_INTERIM: Final = range(100, 200)
_SWITCHING_PROTOCOLS: Final = 101
_SUCCESS: Final = range(200, 300)
# Status codes outside HTTP come from a faulty server; its connection is not reused (R18).
_KNOWN: Final = range(200, 600)
_TLS_ALERT: Final = b"\x15\x03"
_HEADER_CHARACTERS_MAX: Final = 2_048
_NO_STATUS_LINE: Final = b"\0"
"""No head begins with it."""
_PLAIN_BYTES_MAX: Final = 4_096
"""A connection remembers no longer response."""
# This client supports statuses of these two versions only; the reason phrase is optional.
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] [0-9]{3}(?: [^\x00\r\n]*)?\r?\n")
_VERSION_1_1: Final = b"HTTP/1.1 "
_HEAD_END: Final = re.compile(rb"\n\r?\n")
_CONTENT_LENGTH_LINE: Final = re.compile(
    rb"^content-length[ \t]*:([^\r\n]*)\r?\n(?![ \t])", re.IGNORECASE | re.MULTILINE
)
_CONTENT_LENGTH_NAME: Final = re.compile(rb"^content-length[ \t]*:", re.IGNORECASE | re.MULTILINE)
_DIGITS: Final = re.compile(rb"[0-9]+")
# Other headers have no meaning for a delivery, so only these are kept.
_KEPT_HEADERS: Final = frozenset(
    {b"content-length", b"transfer-encoding", b"retry-after", b"location"}
)


class _CapError(Exception):
    """Raised inside parser callbacks to stop the parser; has the message of the attempt's error."""


class ResponseReader:
    """The parser of one connection and its current response.

    Only its connection calls it and reads its fields. httptools calls the `on_…` methods.
    """

    __slots__ = (
        "_body_bytes",
        "_body_parts",
        "_buffer",
        "_head",
        "_head_from",
        "_head_parts",
        "_head_start",
        "_header_bytes",
        "_header_count",
        "_headers",
        "_interim_count",
        "_is_complete",
        "_keeps_successes",
        "_length_error",
        "_parser",
        "_plain",
        "_plain_status",
        "_status_line",
        "error",
        "flag",
        "is_keep_alive",
        "raw_bytes",
        "status",
    )

    def __init__(self, *, keeps_successes: bool = False) -> None:
        self._keeps_successes = keeps_successes
        self._parser = self._make_parser()
        self._status_line = _NO_STATUS_LINE
        """That of the latest head, with its end of line."""
        self._plain: bytes | None = None
        """The previous response, if it was a flawless success that came in one piece and is not kept."""
        self._plain_status = 0
        self.begin()

    def _make_parser(self) -> HttpResponseParser:
        parser = HttpResponseParser(self)
        # The same leniency as aiohttp: bare LF, a space before the colon, folded lines (measured).
        parser.set_dangerous_leniencies(
            lenient_headers=True,
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
        )
        return parser

    def begin(self) -> None:
        """Reset the state for the next response; the parser continues where the previous one ended."""
        self.status = 0
        self.raw_bytes = 0
        self.flag: Flag | None = None
        self.error = ""
        self.is_keep_alive = False
        self._is_complete = False
        self._headers: dict[bytes, bytes] = {}
        self._header_count = self._header_bytes = self._head_from = 0
        # The bytes of the head as received, and the offset of the current head in them.
        self._head_parts: list[bytes] = []
        self._head_start = 0
        # The final head of a response that is kept, status line included.
        self._head = b""
        # A head whose Content-Length headers are merged once it is complete.
        self._buffer: bytearray | None = None
        self._length_error = ""
        self._interim_count = 0
        self._body_bytes = 0
        self._body_parts: list[bytes] = []

    def feed(self, data: bytes) -> bool:
        """Parse received bytes; return True when the response is over and nothing more may be read.

        Then either `status` is set, with `flag` for an irregularity of the rest, or `error` has
        the human-readable reason.
        """
        if data == self._plain and not self.raw_bytes:
            self.raw_bytes = len(data)
            self.status = self._plain_status
            self.is_keep_alive = self._is_complete = True
            return True
        self.raw_bytes += len(data)
        if self._buffer is not None:
            return self._feed_buffer(data)
        is_over = self._feed_parser(data)
        if is_over and self._is_plain(data):
            self._plain, self._plain_status = data, self.status
        return is_over

    def _is_plain(self, data: bytes) -> bool:
        """Return whether these bytes alone were a response of which only the status matters."""
        return (
            self.raw_bytes == len(data) <= _PLAIN_BYTES_MAX
            and self.status in _SUCCESS
            and self.is_keep_alive
            and self.flag is None
            and not self.error
            and not self._keeps_successes
        )

    def _feed_parser(self, data: bytes) -> bool:
        if not self.status:
            self._head_parts.append(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            # 101: the following bytes are not HTTP.
            self.is_keep_alive = False
            return True
        except HttpParserError as fault:
            if self._may_have_repeated_length(fault):
                return self._feed_buffer(b"")
            self._broke(data, fault)
            return True
        return self._is_complete or self._is_over_cap()

    def _is_over_cap(self) -> bool:
        if self.raw_bytes > limits.RAW_BYTES_MAX:
            return self._capped(f"the response took more than {limits.RAW_BYTES_MAX} bytes")
        if not self.status and self.raw_bytes - self._head_from > HEAD_BYTES_MAX:
            return self._capped(f"the response's head has more than {HEAD_BYTES_MAX} bytes")
        return False

    def end(self, *, is_clean: bool) -> None:
        """Handle the end of the connection, which ends a body only if it is clean and no length was given."""
        if self.status and not (is_clean and self._is_delimited_by_close()):
            self.flag = Flag.BODY_INCOMPLETE

    def body(self) -> bytes:
        """Return the kept part of the body, raw."""
        return b"".join(self._body_parts)

    def headers(self) -> bytes:
        """Return the first whole header lines of a response that is kept, raw, joined by line feeds."""
        kept: list[bytes] = []
        left = limits.RESPONSE_HEADERS_KEPT_BYTES_MAX
        for line in self._head.split(b"\n")[1:]:
            left -= len(line) + 1
            if left < 0:
                break
            kept.append(line.removesuffix(b"\r"))
        return b"\n".join(kept)

    def header(self, wanted: bytes) -> str | None:
        """Return the first header of this lower-case name, cut, with control characters escaped."""
        value = self._headers.get(wanted)
        return None if value is None else escape(value.decode("latin-1").strip())

    # --- Called by the parser ---------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Reject a second response to one request."""
        if self._is_complete:
            raise _CapError("more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count every header and trailer, and keep the relevant headers."""
        self._header_count += 1
        line_bytes = len(name) + len(value) + 4
        self._header_bytes += line_bytes
        if line_bytes > HEADER_LINE_BYTES_MAX:
            raise _CapError(f"a header line has more than {HEADER_LINE_BYTES_MAX} bytes")
        if self._header_count > HEADER_COUNT_MAX:
            raise _CapError(f"the response has more than {HEADER_COUNT_MAX} headers")
        if self._header_bytes > HEAD_BYTES_MAX:
            raise _CapError(f"the response's headers have more than {HEAD_BYTES_MAX} bytes")
        # Once the status is known this is a trailer, which is ignored.
        if not self.status:
            lower = name.lower()
            if lower in _KEPT_HEADERS:
                self._headers.setdefault(lower, value[:_HEADER_CHARACTERS_MAX])

    def on_headers_complete(self) -> None:
        """Record a final status, or skip an interim one."""
        parts = self._head_parts
        head = parts[0] if len(parts) == 1 else b"".join(parts)
        # Most responses of a connection begin as the previous one did.
        if not head.startswith(self._status_line, self._head_start):
            match = _STATUS_LINE.match(head, self._head_start)
            if match is None:
                raise _CapError(
                    "the response does not start with a status line of HTTP/1.0 or HTTP/1.1"
                )
            self._status_line = match[0]
        status = self._parser.get_status_code()
        if status in _INTERIM and status != _SWITCHING_PROTOCOLS:
            self._interim_count += 1
            if self._interim_count > limits.INTERIM_ANSWERS_MAX:
                raise _CapError(f"more than {limits.INTERIM_ANSWERS_MAX} interim (1xx) answers")
            self._headers.clear()
            self._header_count = self._header_bytes = 0
            self._head_from = self.raw_bytes
            end = _HEAD_END.search(head, self._head_start)
            self._head_start = len(head) if end is None else end.end()
        elif status < _INTERIM.start:
            raise _CapError(f"the response's status is {status}, which is none")
        else:
            self.status = status
            if self._keeps_successes or status not in _SUCCESS:
                end = _HEAD_END.search(head, self._head_start)
                self._head = head[self._head_start : len(head) if end is None else end.start()]
            self._head_parts = []

    def on_body(self, data: bytes) -> None:
        """Keep the beginning of a body, of a failure as a rule, and stop at the limit."""
        kept = self._body_bytes
        self._body_bytes = kept + len(data)
        if kept < limits.RESPONSE_KEPT_BYTES_MAX and (
            self._keeps_successes or self.status not in _SUCCESS
        ):
            self._body_parts.append(data[: limits.RESPONSE_KEPT_BYTES_MAX - kept])
        if self._body_bytes > limits.RESPONSE_READ_BYTES_MAX:
            raise _CapError("the body is longer than we read")

    def on_message_complete(self) -> None:
        """Record that the response ended where its framing ends."""
        if self.status:
            self._is_complete = True
            parser = self._parser
            # HTTP/1.0 with keep-alive exists, but is not reliable enough for a second request.
            self.is_keep_alive = (
                parser.should_keep_alive()
                and self.status in _KNOWN
                and self._status_line.startswith(_VERSION_1_1)
            )

    # --- Repeated Content-Length headers ----------------------------------------------------------

    def _may_have_repeated_length(self, fault: HttpParserError) -> bool:
        """Return whether the parser stopped at a `Content-Length`, and switch to buffering if so."""
        if self.status or "Content-Length" not in str(fault):
            return False
        # A cap raised in a callback is the context of the parser's own error.
        if isinstance(fault.__context__, _CapError):
            return False
        self._length_error = f"the response is not HTTP/1.1: {fault}"
        self._buffer = bytearray(b"".join(self._head_parts)[self._head_start :])
        return True

    def _feed_buffer(self, data: bytes) -> bool:
        """Buffer a head until it is complete, merge its lengths, and parse it from the start."""
        buffer = self._buffer
        assert buffer is not None  # noqa: S101 -- the callers have checked it
        # The end may span two pieces. At the first call the whole buffer is new.
        seen = max(0, len(buffer) - 3) if data else 0
        buffer += data
        end = _HEAD_END.search(buffer, seen)
        if end is None:
            return self._is_over_cap()
        merged = _with_one_length(bytes(buffer[: end.end()]))
        if merged is None:
            self.error = self._length_error
            return True
        rest = bytes(buffer[end.end() :])
        self._buffer = None
        self._head_parts, self._head_start = [], 0
        self._headers.clear()
        self._header_count = self._header_bytes = 0
        self._parser = self._make_parser()
        return self._feed_parser(merged + rest)

    # --- Invalid responses ------------------------------------------------------------------------

    def _broke(self, data: bytes, fault: HttpParserError) -> None:
        cap = fault.__context__
        if isinstance(cap, _CapError) and not self._is_complete:
            self._capped(str(cap))
        elif self._is_complete:
            self.flag = Flag.SLOPPY
        elif self.status:
            self.flag = Flag.BODY_INCOMPLETE
        elif data.startswith(_TLS_ALERT):
            self.error = (
                "the receiver responded in TLS to plain HTTP: the URL may have to begin with https"
            )
        else:
            self.error = f"the response is not HTTP/1.1: {fault}"

    def _capped(self, error: str) -> bool:
        if self.status:
            self.flag = Flag.BODY_TRUNCATED
        else:
            self.error = error
        return True

    def _is_delimited_by_close(self) -> bool:
        return self._headers.keys().isdisjoint((b"content-length", b"transfer-encoding"))


def _with_one_length(head: bytes) -> bytes | None:
    """Return a head with its repeated, identical lengths merged; None if they differ or are invalid."""
    lines = list(_CONTENT_LENGTH_LINE.finditer(head))
    values = [value.strip(b" \t") for line in lines for value in line[1].split(b",")]
    if (
        len(values) < 2  # noqa: PLR2004 -- the parser accepts a single value itself
        or len(set(values)) > 1
        or _DIGITS.fullmatch(values[0]) is None
        # A header that the pattern of a whole line did not match: its value continues on another line.
        or len(lines) != len(_CONTENT_LENGTH_NAME.findall(head))
    ):
        return None
    first, *others = lines
    for line in reversed(others):
        head = head[: line.start()] + head[line.end() :]
    return head[: first.start(1)] + b" " + values[0] + head[first.end(1) :]
