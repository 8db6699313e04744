"""One HTTP/1.1 exchange after another on one connection: a request written, an answer judged.

What it is. A `Connection` is an asyncio protocol that outlives its exchanges; httptools parses. It
is driven by the loop's callbacks alone: no task, no future and no timer belong to an exchange,
because the CPU cost of a delivery is what this product is chosen for.

What is always true.

* The status line decides. Once the head of a final answer is complete the exchange has its outcome;
  what the body does afterwards becomes a flag (`body_truncated`: we stopped reading or the deadline
  came; `body_incomplete`: the receiver sent less than it said; `sloppy`: it sent more).
* A listener hears exactly once of its exchange: `answered` or `unanswered`, never inside `begin`.
* Nothing is read without a bound: head, header line, header count, interim answers, body and raw
  bytes are all capped, and a cap ends the exchange at once.
* A connection is reusable only when the whole request left, the answer ended where its framing said
  and not one byte followed it. Anything else is aborted, never closed politely: a polite close of a
  TLS transport keeps reading from the receiver for up to 30 s (measured with uvloop).
* Bytes that arrive while no exchange runs are nobody's answer: the connection is aborted (R10).

When things go wrong. A reused connection that ends before the first byte of an answer is
`unanswered`: the receiver closed it while it was idle, and the pool tries once more (R11). A
receiver that stops reading stalls the writing, by `pause_writing`, until the deadline ends it (R14).
"""

import asyncio
import fcntl
import select
import ssl
import struct
import termios
from collections.abc import Callable
from typing import Final, Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from dispatcher.core import limits
from dispatcher.core.model import Answer, Flag, Outcome, Phases
from dispatcher.core.outcome import judge_status

# Larger requests are written piece by piece, so that TLS never encrypts a whole body into memory.
_PIECE_BYTES: Final = 65_536
# Above this the kernel is asked too: a TLS transport of uvloop holds bytes that it does not count
# (measured), and a receiver may answer without having read what has left us.
_SURELY_SENT_BYTES_MAX: Final = 16_384
_LOCATION_CHARACTERS_MAX: Final = 2_048
_STATUS_MAX: Final = 599
_POLLRDHUP: Final[int] = getattr(select, "POLLRDHUP", 0)
_HUNG_UP: Final = _POLLRDHUP | select.POLLHUP | select.POLLERR
_TLS_ALERT: Final = b"\x15\x03"


class Listener(Protocol):
    """What a connection needs of the exchange that runs on it."""

    head: bytes
    body: bytes

    def answered(self, answer: Answer, *, reusable: bool) -> None:
        """Takes the complete answer; when not `reusable`, the connection is already aborted."""

    def unanswered(self, answer: Answer) -> None:
        """A reused connection ended before one byte of an answer; `answer` says how."""


class _CapError(Exception):
    """Raised inside parser callbacks to stop parsing; the text is for the attempt's error."""


class Connection(asyncio.Protocol):
    """One open connection and the exchange that runs on it, if any.

    The loop's callbacks write every field; the pool reads `opened_at`, `idle_since` and
    `served_count`, and writes `is_kept`.
    """

    __slots__ = (
        "_answer_parts",
        "_body_bytes",
        "_descriptor",
        "_first_byte_at",
        "_head_from",
        "_header_bytes",
        "_header_count",
        "_headers",
        "_interim_count",
        "_is_aborted",
        "_is_complete",
        "_is_cut",
        "_is_keep_alive",
        "_is_paused",
        "_is_surplus",
        "_listener",
        "_monotonic",
        "_on_lost",
        "_parser",
        "_poll",
        "_raw_bytes",
        "_release",
        "_rest",
        "_sent_bytes",
        "_status",
        "_transport",
        "_written_at",
        "connect_seconds",
        "dns_seconds",
        "idle_since",
        "is_kept",
        "opened_at",
        "peer",
        "served_count",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        *,
        release: Callable[[Exception | None], None],
        on_lost: Callable[["Connection"], None],
        monotonic: Callable[[], float],
        dns_seconds: float | None = None,
        connect_seconds: float | None = None,
    ) -> None:
        """Takes over an open transport; the caller then calls `transport.set_protocol(self)`.

        `release` gives the connection back to whoever opened it, once it is lost.
        """
        self._transport = transport
        self._release = release
        self._on_lost = on_lost
        self._monotonic = monotonic
        self._descriptor: int = transport.get_extra_info("socket").fileno()
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN | _POLLRDHUP)
        self._parser = HttpResponseParser(self)
        # What aiohttp allows too: bare LF, a space before the colon, folded lines (measured).
        self._parser.set_dangerous_leniencies(
            lenient_headers=True,
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
        )
        self._listener: Listener | None = None
        self._is_aborted = False
        self._is_paused = False
        self._rest: memoryview | None = None
        peer = transport.get_extra_info("peername")
        self.peer: str | None = peer[0] if peer else None
        self.dns_seconds = dns_seconds
        self.connect_seconds = connect_seconds
        self.opened_at = self.idle_since = monotonic()
        self.served_count = 0
        self.is_kept = True

    # --- What the pool asks for -------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """An exchange runs on it."""
        return self._listener is not None

    def is_usable(self) -> bool:
        """Tells whether nothing was read, is there to be read, or has ended; 2 µs."""
        # A transport that is lost is not polled: its number may belong to another socket by now.
        return not (self._is_aborted or self._transport.is_closing() or self._poll.poll(0))

    def is_hung_up(self) -> bool:
        """Tells whether the receiver has ended the connection, whatever it sent before."""
        return self._is_aborted or any(event & _HUNG_UP for _, event in self._poll.poll(0))

    def begin(self, listener: Listener, now: float) -> None:
        """Writes the listener's request; `now` is the monotonic time."""
        self._listener = listener
        self._status = 0
        self._raw_bytes = 0
        self._head_from = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._header_count = 0
        self._header_bytes = 0
        self._interim_count = 0
        self._body_bytes = 0
        self._answer_parts: list[bytes] = []
        self._is_complete = self._is_surplus = self._is_cut = self._is_keep_alive = False
        self._first_byte_at = self._written_at = now
        head, body = listener.head, listener.body
        self._sent_bytes = len(head) + len(body)
        if len(body) <= _PIECE_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._rest = memoryview(body)
            self._write_rest()

    def expire(self, seconds: float) -> None:
        """Ends the exchange because its deadline has come, `seconds` after its start."""
        if self._status:
            self._finish(Flag.BODY_TRUNCATED)
        elif self._rest is not None:
            left = len(self._rest)
            self._fail(
                Outcome.TIMEOUT,
                f"the receiver had not read the whole request within {seconds:g} s: "
                f"{left} of {self._sent_bytes} bytes were not sent yet",
            )
        elif self._raw_bytes:
            self._fail(
                Outcome.TIMEOUT,
                f"the receiver had not finished the head of its answer within {seconds:g} s "
                f"({self._raw_bytes} bytes came)",
            )
        else:
            self._fail(Outcome.TIMEOUT, f"no answer within {seconds:g} s")

    def abort(self) -> None:
        """Ends the connection at once; a listener that still waits hears nothing more."""
        self._listener = None
        self._rest = None
        if not self._is_aborted:
            self._is_aborted = True
            self._transport.abort()

    # --- What the loop calls ----------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._listener is None:
            self.abort()
            return
        if not self._raw_bytes:
            self._first_byte_at = self._monotonic()
        self._raw_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._is_keep_alive = False
            self._finish()
        except HttpParserError as fault:
            self._parsing_failed(data, fault)
        else:
            if self._is_complete:
                self._finish()
            elif self._raw_bytes > limits.RAW_BYTES_MAX:
                self._parsing_failed(
                    data, _CapError(f"the answer took more than {limits.RAW_BYTES_MAX} bytes")
                )
            elif not self._status and self._raw_bytes - self._head_from > limits.HEAD_BYTES_MAX:
                self._parsing_failed(
                    data, _CapError(f"the answer's head has more than {limits.HEAD_BYTES_MAX} bytes")
                )

    def eof_received(self) -> bool:
        self._ended(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(exc)
        self._is_aborted = True
        self._release(exc)
        self._on_lost(self)

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._write_rest()

    # --- What the parser calls --------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._is_complete:
            self._is_surplus = True
            raise _CapError("more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
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
        if not self._status and self._header_bytes <= limits.HEADERS_KEPT_BYTES_MAX:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200 and status != 101:
            if status < 100:
                raise _CapError(f"status {status} is none")
            self._interim_count += 1
            if self._interim_count > limits.INTERIM_ANSWERS_MAX:
                raise _CapError(f"more than {limits.INTERIM_ANSWERS_MAX} interim (1xx) answers")
            self._headers.clear()
            self._header_count = self._header_bytes = 0
            self._head_from = self._raw_bytes
            return
        self._status = status

    def on_body(self, data: bytes) -> None:
        kept = self._body_bytes
        self._body_bytes = kept + len(data)
        if kept < limits.RESPONSE_KEPT_BYTES_MAX and not 200 <= self._status < 300:
            self._answer_parts.append(data[: limits.RESPONSE_KEPT_BYTES_MAX - kept])
        if self._body_bytes > limits.RESPONSE_READ_BYTES_MAX:
            self._is_cut = True
            raise _CapError("body longer than we read")

    def on_message_complete(self) -> None:
        if self._status:
            self._is_complete = True
            parser = self._parser
            self._is_keep_alive = (
                parser.should_keep_alive()
                and self._status <= _STATUS_MAX
                and parser.get_http_version() == "1.1"
            )

    # --- How an exchange ends ---------------------------------------------------------------------

    def _ended(self, exc: Exception | None) -> None:
        """The receiver ended the connection, or the network did."""
        if self._listener is None:
            return
        if self._status:
            is_whole = exc is None and self._is_delimited_by_close()
            self._finish(None if is_whole else Flag.BODY_INCOMPLETE)
        elif self._raw_bytes:
            if exc is None:
                self._fail(
                    Outcome.PROTOCOL_ERROR,
                    "the receiver closed the connection in the middle of its answer's head "
                    f"({self._raw_bytes} bytes came)",
                )
            else:
                self._fail(
                    Outcome.CONNECT_ERROR, f"the connection broke in mid-answer: {_words(exc)}"
                )
        elif isinstance(exc, ssl.SSLError):
            self._fail(Outcome.TLS_ERROR, f"the receiver ended TLS: {_words(exc)}")
        elif exc is None:
            self._fail(
                Outcome.CONNECT_ERROR, "the receiver closed the connection without an answer"
            )
        else:
            self._fail(
                Outcome.CONNECT_ERROR, f"the connection broke before an answer: {_words(exc)}"
            )

    def _parsing_failed(self, data: bytes, fault: Exception) -> None:
        cap = fault if isinstance(fault, _CapError) else fault.__context__
        if self._is_complete:
            self._is_surplus = True
            self._finish()
        elif self._status:
            is_ours = isinstance(cap, _CapError)
            self._finish(Flag.BODY_TRUNCATED if is_ours else Flag.BODY_INCOMPLETE)
        elif isinstance(cap, _CapError):
            self._fail(Outcome.PROTOCOL_ERROR, str(cap))
        elif data.startswith(_TLS_ALERT):
            self._fail(
                Outcome.PROTOCOL_ERROR,
                "the receiver answered in TLS to plain HTTP: the URL may have to begin with https",
            )
        else:
            self._fail(Outcome.PROTOCOL_ERROR, f"the answer is not HTTP/1.1: {fault}")

    def _finish(self, flag: Flag | None = None) -> None:
        """Hands over an answer whose status is known, and judges the connection's future."""
        listener = cast("Listener", self._listener)
        self._listener = None
        now = self._monotonic()
        flags: tuple[Flag, ...] = () if flag is None else (flag,)
        if self._is_surplus:
            flags = (Flag.SLOPPY, *flags)
        reusable = (
            self._is_keep_alive and self.is_kept and not flags and self._is_all_sent()
        )
        status = self._status
        outcome = judge_status(status)
        retry_after = location = error = None
        if outcome is not Outcome.OK:
            retry_after = self._header(b"retry-after")
            location = self._header(b"location")
            error = _status_in_words(status, location)
        answer = Answer(
            outcome,
            status,
            b"".join(self._answer_parts),
            flags,
            retry_after,
            location,
            error,
            self.peer,
            self.served_count > 0,
            self._phases(now),
        )
        self.served_count += 1
        if reusable:
            self.idle_since = now
        else:
            self.abort()
        listener.answered(answer, reusable=reusable)

    def _fail(self, outcome: Outcome, error: str) -> None:
        """Ends an exchange that has no status, and the connection with it."""
        listener = cast("Listener", self._listener)
        is_reused = self.served_count > 0
        answer = Answer(
            outcome,
            error=error,
            peer=self.peer,
            reused=is_reused,
            phases=self._phases(self._monotonic()),
        )
        is_stale = is_reused and not self._raw_bytes and outcome is not Outcome.TIMEOUT
        self.abort()
        if is_stale:
            listener.unanswered(answer)
        else:
            listener.answered(answer, reusable=False)

    def _phases(self, now: float) -> Phases:
        is_first = not self.served_count
        first_byte_at = self._first_byte_at
        is_heard = self._raw_bytes > 0
        return Phases(
            self.dns_seconds if is_first else None,
            self.connect_seconds if is_first else None,
            # An early answer can begin before a large request was written to its end.
            max(0.0, (first_byte_at if is_heard else now) - self._written_at),
            now - first_byte_at if is_heard else None,
        )

    def _header(self, wanted: bytes) -> str | None:
        for name, value in self._headers:
            if name.lower() == wanted:
                return value[:_LOCATION_CHARACTERS_MAX].decode("latin-1").strip()
        return None

    def _is_delimited_by_close(self) -> bool:
        names = {name.lower() for name, _ in self._headers}
        return names.isdisjoint((b"content-length", b"transfer-encoding"))

    def _is_all_sent(self) -> bool:
        """Tells whether the whole request has left; the rest would become the next request (R13)."""
        if self._rest is not None or self._transport.get_write_buffer_size():
            return False
        if self._sent_bytes <= _SURELY_SENT_BYTES_MAX:
            return True
        try:
            unsent = fcntl.ioctl(self._descriptor, termios.TIOCOUTQ, bytes(4))
        except OSError:
            return False
        return struct.unpack("i", unsent) == (0,)

    def _write_rest(self) -> None:
        rest = self._rest
        while rest is not None and not self._is_paused:
            self._transport.write(rest[:_PIECE_BYTES])
            rest = rest[_PIECE_BYTES:] if len(rest) > _PIECE_BYTES else None
            self._rest = rest
            if rest is None:
                self._written_at = self._monotonic()


def _status_in_words(status: int, location: str | None) -> str:
    if 300 <= status < 400 and location is not None:
        return f"the receiver answered {status} (redirect to {location}); redirects are not followed"
    return f"the receiver answered {status}"


def _words(exc: Exception) -> str:
    return str(exc) or type(exc).__name__
