"""Reads one HTTP/1.1 answer after another from bytes, with a bound on everything; httptools parses.

What it is. The half of an exchange that touches no socket: bytes go into `feed`, and its fields say
what has come so far. It belongs to one connection, because the parser does.

What is always true. `status` is set exactly when the head of a final answer is complete, and never
changes afterwards: a status that was seen cannot be lost to what follows it (a body after 204,
surplus bytes, a broken chunk; R8, R9). Head, header line, header count, interim answers, body and
raw bytes are capped, and `feed` says so at once, so that the connection reads no further. Nothing
is decompressed. Of a success no body is kept; of a failure the first bytes are.
"""

from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from dispatcher.core import limits
from dispatcher.core.model import Flag

_INTERIM: Final = range(100, 200)
_SWITCHING_PROTOCOLS: Final = 101
_SUCCESS: Final = range(200, 300)
# Numbers that HTTP does not have come from something odd; its connection is not used again (R18).
_KNOWN: Final = range(200, 600)
_TLS_ALERT: Final = b"\x15\x03"
_HEADER_CHARACTERS_MAX: Final = 2_048


class _CapError(Exception):
    """Raised inside parser callbacks to stop the parser; the text is for the attempt's error."""


class AnswerReader:
    """The parser of one connection and the answer it is reading.

    Only the connection that owns it calls it and reads its fields. The callbacks that are named
    `on_…` are httptools'.
    """

    __slots__ = (
        "_body_bytes",
        "_body_parts",
        "_head_from",
        "_header_bytes",
        "_header_count",
        "_headers",
        "_interim_count",
        "_is_complete",
        "_parser",
        "error",
        "flag",
        "is_keep_alive",
        "raw_bytes",
        "status",
    )

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        # What aiohttp allows too: bare LF, a space before the colon, folded lines (measured).
        self._parser.set_dangerous_leniencies(
            lenient_headers=True,
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
        )
        self.begin()

    def begin(self) -> None:
        """Forgets the answer before; the parser goes on where that one ended."""
        self.status = 0
        self.raw_bytes = 0
        self.flag: Flag | None = None
        self.error = ""
        self.is_keep_alive = False
        self._is_complete = False
        self._headers: list[tuple[bytes, bytes]] = []
        self._header_count = self._header_bytes = self._head_from = 0
        self._interim_count = 0
        self._body_bytes = 0
        self._body_parts: list[bytes] = []

    def feed(self, data: bytes) -> bool:
        """Takes what arrived; True when the answer is over and nothing more may be read.

        Then either `status` is set, with `flag` for what was odd about the rest, or `error` says in
        words why there is none.
        """
        self.raw_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            # 101: whatever follows is not HTTP.
            self.is_keep_alive = False
            return True
        except HttpParserError as fault:
            self._broke(data, fault)
            return True
        if self._is_complete:
            return True
        if self.raw_bytes > limits.RAW_BYTES_MAX:
            return self._capped(f"the answer took more than {limits.RAW_BYTES_MAX} bytes")
        if not self.status and self.raw_bytes - self._head_from > limits.HEAD_BYTES_MAX:
            return self._capped(f"the answer's head has more than {limits.HEAD_BYTES_MAX} bytes")
        return False

    def end(self, *, is_clean: bool) -> None:
        """The connection ended; only a clean end can be the end of a body, and of one kind only."""
        if self.status and not (is_clean and self._is_delimited_by_close()):
            self.flag = Flag.BODY_INCOMPLETE

    def body(self) -> bytes:
        """Returns what is kept of the body, raw."""
        return b"".join(self._body_parts)

    def header(self, wanted: bytes) -> str | None:
        """Returns the first header of this lower-case name, cut to what is worth showing."""
        for name, value in self._headers:
            if name.lower() == wanted:
                return value[:_HEADER_CHARACTERS_MAX].decode("latin-1").strip()
        return None

    # --- What the parser calls --------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A second answer to one request is surplus."""
        if self._is_complete:
            raise _CapError("more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Counts every header and trailer, keeps the headers."""
        self._header_count += 1
        line_bytes = len(name) + len(value) + 4
        self._header_bytes += line_bytes
        if line_bytes > limits.HEADER_LINE_BYTES_MAX:
            raise _CapError(f"a header line has more than {limits.HEADER_LINE_BYTES_MAX} bytes")
        if self._header_count > limits.HEADER_COUNT_MAX:
            raise _CapError(f"the answer has more than {limits.HEADER_COUNT_MAX} headers")
        if self._header_bytes > limits.HEAD_BYTES_MAX:
            raise _CapError(f"the answer's headers have more than {limits.HEAD_BYTES_MAX} bytes")
        # With the status known this is a trailer, which nobody asked for.
        if not self.status and self._header_bytes <= limits.HEADERS_KEPT_BYTES_MAX:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Takes a final status, passes over an interim one."""
        status = self._parser.get_status_code()
        if status in _INTERIM and status != _SWITCHING_PROTOCOLS:
            self._interim_count += 1
            if self._interim_count > limits.INTERIM_ANSWERS_MAX:
                raise _CapError(f"more than {limits.INTERIM_ANSWERS_MAX} interim (1xx) answers")
            self._headers.clear()
            self._header_count = self._header_bytes = 0
            self._head_from = self.raw_bytes
        elif status < _INTERIM.start:
            raise _CapError(f"the answer's status is {status}, which is none")
        else:
            self.status = status

    def on_body(self, data: bytes) -> None:
        """Keeps the beginning of a failure's body, and ends a long one."""
        kept = self._body_bytes
        self._body_bytes = kept + len(data)
        if kept < limits.RESPONSE_KEPT_BYTES_MAX and self.status not in _SUCCESS:
            self._body_parts.append(data[: limits.RESPONSE_KEPT_BYTES_MAX - kept])
        if self._body_bytes > limits.RESPONSE_READ_BYTES_MAX:
            raise _CapError("the body is longer than we read")

    def on_message_complete(self) -> None:
        """The answer ended where its framing said."""
        if self.status:
            self._is_complete = True
            parser = self._parser
            # HTTP/1.0 with keep-alive exists, and is too old to be trusted with a second request.
            self.is_keep_alive = (
                parser.should_keep_alive()
                and self.status in _KNOWN
                and parser.get_http_version() == "1.1"
            )

    # --- How an answer goes wrong -----------------------------------------------------------------

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
                "the receiver answered in TLS to plain HTTP: the URL may have to begin with https"
            )
        else:
            self.error = f"the answer is not HTTP/1.1: {fault}"

    def _capped(self, error: str) -> bool:
        if self.status:
            self.flag = Flag.BODY_TRUNCATED
        else:
            self.error = error
        return True

    def _is_delimited_by_close(self) -> bool:
        names = {name.lower() for name, _ in self._headers}
        return names.isdisjoint((b"content-length", b"transfer-encoding"))
