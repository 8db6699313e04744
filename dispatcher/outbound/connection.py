"""Successive HTTP/1.1 exchanges on one connection: write a request, evaluate the response.

What it is. A `Connection` is an asyncio protocol that outlives its exchanges; an `ResponseReader`
parses the responses. Only callbacks of the loop drive it: an exchange has no task, no future and no
timer, because low CPU cost per delivery is a main goal of this product.

Invariants.

* The status line decides. Once the head of a final response is complete, the exchange has its
  outcome. The body only adds a flag (`body_truncated`: reading stopped at a limit or the deadline;
  `body_incomplete`: the receiver sent less than announced; `sloppy`: it sent more).
* Each exchange notifies its listener exactly once, with `answered` or `unanswered`, never inside `begin`.
* A connection is reusable only if the whole request was sent, the response ended where its framing
  ends, and no byte followed it. All others are aborted, never closed gracefully: a graceful close of a
  TLS transport keeps reading from the receiver for up to 30 s (measured with uvloop).
* Bytes that arrive while no exchange runs belong to no request: the connection is aborted (R10).

Failures. If a reused connection ends before the first byte of a response, the exchange is
`unanswered`: the receiver closed it while it was idle, and the pool tries once more (R11). Broken
connections are `connect_error`, responses that are not HTTP are `protocol_error` (R12). A receiver
that stops reading pauses the writing (`pause_writing`) until the deadline ends the exchange (R14).
"""

import asyncio
import fcntl
import select
import ssl
import struct
import termios
from collections.abc import Callable
from typing import Final, Protocol

from dispatcher.core.model import Flag, HttpResponse, Outcome, Phases, made
from dispatcher.core.outcome import judge_status
from dispatcher.core.printable import escape
from dispatcher.outbound.response_parser import ResponseReader

# Larger requests are written piece by piece, so that TLS never encrypts a whole body into memory.
_PIECE_BYTES: Final = 65_536
# Above this size the kernel is queried too: a TLS transport of uvloop buffers bytes that it does not
# count (measured), and a receiver may respond without having read the whole request.
_SURELY_SENT_BYTES_MAX: Final = 16_384
_REDIRECTS: Final = range(300, 400)
_POLLRDHUP: Final[int] = getattr(select, "POLLRDHUP", 0)
_HUNG_UP: Final = _POLLRDHUP | select.POLLHUP | select.POLLERR


class ExchangeOwner(Protocol):
    """The interface of an exchange that a connection uses."""

    head: bytes
    body: bytes

    def answered(self, answer: HttpResponse, *, reusable: bool) -> None:
        """Handle the complete response; unless `reusable`, the connection is already aborted."""

    def unanswered(self, answer: HttpResponse) -> None:
        """Handle the end of a reused connection before the first byte of a response; `answer` has the cause."""


class Connection(asyncio.Protocol):
    """One open connection and its current exchange, if any.

    The loop's callbacks write every field; the pool reads `opened_at`, `idle_since` and `peer`, and
    writes `is_kept`.
    """

    __slots__ = (
        "_connect_seconds",
        "_descriptor",
        "_dns_seconds",
        "_first_byte_at",
        "_is_aborted",
        "_is_paused",
        "_keeps_successes",
        "_listener",
        "_monotonic",
        "_on_lost",
        "_poll",
        "_reader",
        "_release",
        "_rest",
        "_sent_bytes",
        "_served_count",
        "_transport",
        "_written_at",
        "idle_since",
        "is_kept",
        "opened_at",
        "peer",
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
        keeps_successes: bool = False,
    ) -> None:
        """Wrap an open transport; the caller then calls `transport.set_protocol(self)`.

        `release` returns the connection to its opener once it is lost. With `keeps_successes`,
        headers and body of successful responses are kept as those of failures are.
        """
        self._transport = transport
        self._release = release
        self._on_lost = on_lost
        self._monotonic = monotonic
        self._dns_seconds = dns_seconds
        self._connect_seconds = connect_seconds
        self._descriptor: int = transport.get_extra_info("socket").fileno()
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN | _POLLRDHUP)
        self._keeps_successes = keeps_successes
        self._reader = ResponseReader(keeps_successes=keeps_successes)
        self._listener: ExchangeOwner | None = None
        self._is_aborted = False
        self._is_paused = False
        self._rest: memoryview | None = None
        self._served_count = 0
        peer = transport.get_extra_info("peername")
        self.peer: str | None = peer[0] if peer else None
        self.opened_at = self.idle_since = monotonic()
        self.is_kept = True

    # --- Called by the pool -----------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether an exchange is running."""
        return self._listener is not None

    def is_usable(self) -> bool:
        """Return whether the connection is open and has nothing to read; takes 2 µs."""
        # A lost transport is not polled: its descriptor may already belong to another socket.
        return not (self._is_aborted or self._transport.is_closing() or self._poll.poll(0))

    def is_hung_up(self) -> bool:
        """Return whether the receiver has closed the connection, regardless of data sent before."""
        return self._is_aborted or any(event & _HUNG_UP for _, event in self._poll.poll(0))

    def begin(self, listener: ExchangeOwner, now: float) -> None:
        """Write the listener's request; `now` is the monotonic time."""
        self._listener = listener
        self._reader.begin()
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
        """End the exchange at its deadline, `seconds` after its start."""
        reader = self._reader
        within = f"within {seconds:g} s"
        if reader.status:
            reader.flag = Flag.BODY_TRUNCATED
            self._finish()
        elif self._rest is not None:
            text = (
                f"the receiver had not read the whole request {within}: "
                f"{len(self._rest)} of {self._sent_bytes} bytes were not sent yet"
            )
            self._fail(Outcome.TIMEOUT, text)
        elif reader.raw_bytes:
            text = (
                f"the receiver had not finished the head of its response {within} "
                f"({reader.raw_bytes} bytes came)"
            )
            self._fail(Outcome.TIMEOUT, text)
        else:
            self._fail(Outcome.TIMEOUT, f"no response {within}")

    def abort(self) -> None:
        """End the connection at once, without notifying a waiting listener."""
        self._listener = None
        self._rest = None
        if not self._is_aborted:
            self._is_aborted = True
            self._transport.abort()

    # --- Called by the loop -----------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse bytes of a response; abort if no exchange is running."""
        if self._listener is None:
            self.abort()
            return
        reader = self._reader
        if not reader.raw_bytes:
            self._first_byte_at = self._monotonic()
        if reader.feed(data):
            if reader.status:
                self._finish()
            else:
                self._fail(Outcome.PROTOCOL_ERROR, reader.error)

    def eof_received(self) -> bool:
        """End the connection, because the receiver will send no more."""
        self._ended(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """End the exchange, because the transport is closed."""
        self._ended(exc)
        self._is_aborted = True
        self._release(exc)
        self._on_lost(self)

    def pause_writing(self) -> None:
        """Pause writing, because the receiver reads too slowly."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """Continue writing."""
        self._is_paused = False
        self._write_rest()

    # --- How an exchange ends ---------------------------------------------------------------------

    def _ended(self, exc: Exception | None) -> None:
        if self._listener is None:
            return
        reader = self._reader
        if reader.status:
            reader.end(is_clean=exc is None)
            self._finish()
        elif reader.raw_bytes and exc is None:
            text = (
                "the receiver closed the connection within the head of its response "
                f"({reader.raw_bytes} bytes came)"
            )
            self._fail(Outcome.PROTOCOL_ERROR, text)
        elif reader.raw_bytes:
            self._fail(
                Outcome.CONNECT_ERROR,
                f"the connection broke in the middle of the response: {_words(exc)}",
            )
        elif exc is None:
            text = "the receiver closed the connection without a response"
            self._fail(Outcome.CONNECT_ERROR, text)
        elif isinstance(exc, ssl.SSLError):
            self._fail(Outcome.TLS_ERROR, f"the receiver ended TLS: {_words(exc)}")
        else:
            text = f"the connection broke before a response: {_words(exc)}"
            self._fail(Outcome.CONNECT_ERROR, text)

    def _finish(self) -> None:
        """Report a response with a status, and decide whether to keep the connection."""
        reader = self._reader
        listener = self._listener
        assert listener is not None  # noqa: S101 -- the callers have checked it
        self._listener = None
        now = self._monotonic()
        flag, status = reader.flag, reader.status
        reusable = reader.is_keep_alive and flag is None and self.is_kept and self._is_all_sent()
        outcome = judge_status(status)
        body = headers = b""
        retry_after = location = error = None
        if outcome is not Outcome.OK or self._keeps_successes:
            body, headers = reader.body(), reader.headers()
        if outcome is not Outcome.OK:
            retry_after = reader.header(b"retry-after")
            location = reader.header(b"location")
            error = _status_in_words(status, location)
        answer = made(
            HttpResponse,
            (
                outcome,
                status,
                body,
                () if flag is None else (flag,),
                retry_after,
                location,
                error,
                self.peer,
                self._served_count > 0,
                self._phases(now),
                headers,
            ),
        )
        self._served_count += 1
        if reusable:
            self.idle_since = now
        else:
            self.abort()
        listener.answered(answer, reusable=reusable)

    def _fail(self, outcome: Outcome, error: str) -> None:
        """End an exchange without a status, and its connection."""
        listener = self._listener
        assert listener is not None  # noqa: S101 -- the callers have checked it
        is_reused = self._served_count > 0
        answer = HttpResponse(
            outcome,
            error=escape(error),
            peer=self.peer,
            reused=is_reused,
            phases=self._phases(self._monotonic()),
        )
        is_stale = is_reused and not self._reader.raw_bytes and outcome is not Outcome.TIMEOUT
        self.abort()
        if is_stale:
            listener.unanswered(answer)
        else:
            listener.answered(answer, reusable=False)

    def _phases(self, now: float) -> Phases:
        is_first = not self._served_count
        is_heard = self._reader.raw_bytes > 0
        first_byte_at = self._first_byte_at if is_heard else now
        return made(
            Phases,
            (
                self._dns_seconds if is_first else None,
                self._connect_seconds if is_first else None,
                # An early response can begin before a large request is completely written.
                max(0.0, first_byte_at - self._written_at),
                now - first_byte_at if is_heard else None,
            ),
        )

    def _is_all_sent(self) -> bool:
        """Return whether the whole request was sent; the rest would be read as the next one (R13)."""
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
    if status in _REDIRECTS and location is not None:
        return f"the receiver responded with {status} (redirect to {location}); redirects are not followed"
    return f"the receiver responded with {status}"


def _words(exc: Exception | None) -> str:
    return str(exc) or type(exc).__name__
