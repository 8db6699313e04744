"""Reads a request's body within its bounds, and limits what large bodies cost.

The event loop that reads a body also sends deliveries, and an operator's token allows a hundred
requests per second. Invariants:

* Nothing is kept beyond the route's bound, whatever Content-Length states. A body that arrives too
  slowly ends with 408.
* At most `PLACES` large bodies are in memory, and `BATCH_PLACES` that are larger than one event. A
  request that gets no place in time ends with 503.
* Large bodies are decoded one after the other. After each millisecond the decoder rests for `REST`
  times as long (`BATCH_REST` for a batch of events), so decoding uses at most a quarter (a half) of the
  event loop's time. Small bodies never wait.
* A client that sends `Expect: 100-continue` gets that response only after its token, the size and the
  encoding have been accepted.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from aiohttp import HttpVersion11, hdrs, web

from dispatcher.admin.api.batch_decoder import EVENT_BYTES_MAX, Batch, decode_events
from dispatcher.admin.api.decoder import Result, Steps, decode_body
from dispatcher.admin.api.problems import ProblemError

BODY_BYTES_MAX: Final = 1024 * 1024
BATCH_BYTES_MAX: Final = 16 * 1024 * 1024
LARGE_BYTES: Final = 64 * 1024
"""Ordinary JSON of that size takes 0.7 ms to decode."""
PLACES: Final = 16
BATCH_PLACES: Final = 2
WAIT_SECONDS_MAX: Final = 10.0
READ_SECONDS_MAX: Final = 30.0
BUSY_SECONDS: Final = 0.001
"""After so long the decoder lets other tasks run; its longest single step takes 4.4 ms."""
REST: Final = 3.0
BATCH_REST: Final = 1.0
LINES_TYPE: Final = "application/x-ndjson"
LINES_TYPES: Final = frozenset({LINES_TYPE, "application/ndjson", "application/jsonl"})
"""Newline-delimited JSON has no registered type; these are in use."""
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
"""Editors and shells of Windows begin files with it; a reader may ignore it (RFC 8259, 8.1)."""
_BLANKS: Final = b" \t\r\n"
JSON_TYPES: Final = frozenset({"application/json", "application/merge-patch+json"})


class BodyReader:
    """Reads the bodies of all routes; used by the event loop's thread alone."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._places = asyncio.Semaphore(PLACES)
        self._batch_places = asyncio.Semaphore(BATCH_PLACES)
        self._turn = asyncio.Lock()

    async def read(
        self, request: web.Request, bytes_max: int = BODY_BYTES_MAX
    ) -> Mapping[str, Any]:
        """Return the members of the body's JSON object; an empty body has none.

        Raises:
            ProblemError: the body is too large, too slow, of another type or not a JSON object, or
                too many large bodies are being read.
            InvalidRequestError: a name is repeated, or a text has a character that Postgres cannot
                store.
        """
        async with self._raw(request, bytes_max) as raw:
            if not raw:
                return {}
            _require_type(request, JSON_TYPES)
            return await self.run(decode_body(raw), len(raw))

    async def read_events(self, request: web.Request) -> Mapping[str, Any] | Batch:
        """Return the members of one event, or the events of a JSON list or of newline-delimited JSON.

        Raises:
            ProblemError, InvalidRequestError: as `read`; no event of a batch can be read if one is not JSON.
        """
        arrived = _arrived(request)
        if arrived is not None:
            return await self._decode_events(request, arrived)
        async with self._raw(request, BATCH_BYTES_MAX) as raw:
            return await self._decode_events(request, raw)

    async def _decode_events(self, request: web.Request, raw: bytes) -> Mapping[str, Any] | Batch:
        lines = request.content_type in LINES_TYPES
        if _is_batch(request, raw):
            if not lines:
                _require_type(request, JSON_TYPES)
            return await self.run(decode_events(raw, lines=lines), len(raw), rest=BATCH_REST)
        if not raw:
            return {}
        _require_type(request, JSON_TYPES)
        return await self.run(decode_body(raw), len(raw))

    @asynccontextmanager
    async def _raw(self, request: web.Request, bytes_max: int) -> AsyncIterator[bytes]:
        length = request.content_length
        if length is not None and length > bytes_max:
            raise _too_large(bytes_max)
        if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise ProblemError(415, "The body is compressed. Send it without Content-Encoding.")
        async with self.place(length), AsyncExitStack() as larger:

            async def grow(head: bytes) -> None:
                if not _is_batch(request, head):
                    raise _too_large(EVENT_BYTES_MAX)
                await larger.enter_async_context(self._batch_places)

            yield (await _read(request, bytes_max, grow)).removeprefix(BYTE_ORDER_MARK)

    @asynccontextmanager
    async def place(self, length: int | None) -> AsyncIterator[None]:
        """Hold a place for a body of this length, which is None if it was not announced.

        Raises:
            ProblemError: no place became free in time.
        """
        if length is not None and length <= LARGE_BYTES:
            yield
            return
        try:
            async with asyncio.timeout(WAIT_SECONDS_MAX):
                await self._places.acquire()
        except TimeoutError:
            raise ProblemError(
                503,
                "Too many large bodies are being read. Try again in a second.",
                headers={"Retry-After": "1"},
                close=True,
            ) from None
        try:
            yield
        finally:
            self._places.release()

    async def run(self, steps: Steps[Result], length: int, *, rest: float = REST) -> Result:
        """Return the steps' result; those of a large body wait for their turn, and rest."""
        if length <= LARGE_BYTES:
            return await self._advance(steps, 0.0)
        async with self._turn:
            result = await self._advance(steps, rest)
        await asyncio.sleep(0)  # the operation begins with a step of its own
        return result

    async def _advance(self, steps: Steps[Result], rest: float) -> Result:
        while True:
            began_at = self._monotonic()
            try:
                while self._monotonic() - began_at < BUSY_SECONDS:
                    next(steps)
            except StopIteration as end:
                result: Result = end.value
                return result
            await asyncio.sleep((self._monotonic() - began_at) * rest)


def _arrived(request: web.Request) -> bytes | None:
    """Return a small body that has arrived completely, so that no bound on it has to be kept.

    None: it must be read, or it is not an ordinary one.
    """
    length, content = request.content_length, request.content
    if length is None or length > LARGE_BYTES or not content.is_eof() or content.exception():
        return None
    if hdrs.CONTENT_ENCODING in request.headers or hdrs.EXPECT in request.headers:
        return None
    return content.read_nowait().removeprefix(BYTE_ORDER_MARK)


async def _read(
    request: web.Request, bytes_max: int, grow: Callable[[bytes], Awaitable[None]]
) -> bytes:
    """Return the bytes of a body; `grow` is awaited before it becomes larger than one event may be."""
    chunks: list[bytes] = []
    size = 0
    _request_body(request)
    try:
        async with asyncio.timeout(READ_SECONDS_MAX):
            async for chunk in request.content.iter_any():
                if size <= EVENT_BYTES_MAX < size + len(chunk) <= bytes_max:
                    await grow(chunks[0] if chunks else chunk)
                size += len(chunk)
                if size > bytes_max:
                    raise _too_large(bytes_max)
                chunks.append(chunk)
    except TimeoutError:
        raise ProblemError(
            408,
            f"The body did not arrive within {READ_SECONDS_MAX:.0f} s. Send it faster.",
            close=True,
        ) from None
    except web.RequestPayloadError:
        raise ProblemError(
            400, "The body is cut off or its framing is invalid. Send it again.", close=True
        ) from None
    return b"".join(chunks)


def _is_batch(request: web.Request, head: bytes) -> bool:
    """Return whether a body that begins like this has a batch of events."""
    start = head[:64].removeprefix(BYTE_ORDER_MARK).lstrip(_BLANKS)
    return request.content_type in LINES_TYPES or start[:1] == b"["


def _require_type(request: web.Request, types: frozenset[str]) -> None:
    if request.content_type not in types:
        raise ProblemError(415, "The body's type is not JSON. Send Content-Type: application/json.")


def _request_body(request: web.Request) -> None:
    """Request the body from a client that waits for `100 Continue` (RFC 9110, 10.1.1)."""
    waits = request.headers.get("Expect", "").lower() == "100-continue"
    if waits and request.version >= HttpVersion11 and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _too_large(bytes_max: int) -> ProblemError:
    return ProblemError(
        413, f"The body is too large. Send at most {bytes_max:,} bytes.", close=True
    )
