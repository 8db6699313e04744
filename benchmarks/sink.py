"""A receiver that reads each request whole and answers by its path: `python -m benchmarks.sink PORT`.

200 at once; under `/slow` after a second; under `/flap` 200 for half a minute and 503 for the next;
one request in a hundred under `/ok` gets 503. `/status` is the number of requests in the form of
nginx's `stub_status`.
"""

import asyncio
import sys
import time
from typing import cast

import uvloop

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nno"
FLAP_SECONDS = 30
SLOW_SECONDS = 1.0
_counts = {"ok": 0, "all": 0}


class Sink(asyncio.Protocol):
    """Knows just enough HTTP/1.1 to find the end of a request."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the connection."""
        self._transport = cast("asyncio.Transport", transport)
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        """Answers each request that is complete."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            length = 0
            if b"content-length:" in head:
                length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
            if len(self._buffer) < end + 4 + length:
                return
            self._buffer = self._buffer[end + 4 + length :]
            self._answer(head.split(b" ", 2)[1])

    def _answer(self, path: bytes) -> None:
        answer = _ANSWER
        _counts["all"] += 1
        if path == b"/status":
            answer = _status(_counts["all"])
        elif path.startswith(b"/slow"):
            asyncio.get_running_loop().call_later(SLOW_SECONDS, self._transport.write, answer)
            return
        if path.startswith(b"/flap") and int(time.monotonic() / FLAP_SECONDS) % 2:
            answer = _UNAVAILABLE
        elif path.startswith(b"/ok"):
            _counts["ok"] += 1
            if _counts["ok"] % 100 == 0:
                answer = _UNAVAILABLE
        self._transport.write(answer)


def _status(requests: int) -> bytes:
    body = f"Active connections: 1\nserver accepts handled requests\n 1 1 {requests}\n".encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
