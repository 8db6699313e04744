"""A receiver that notes when each event arrived: `python -m benchmarks.arrivals PORT FILE [STALL_SECONDS]`.

Answers 200 at once, or after STALL_SECONDS. At SIGTERM it writes JSON to FILE: event id to seconds
since 1970.
"""

import asyncio
import signal
import sys
import time
from pathlib import Path

import orjson
import uvloop

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_arrivals: dict[str, float] = {}
_stall_seconds = 0.0


class _Receiver(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].decode("latin-1").lower()
            fields = dict(line.partition(": ")[::2] for line in head.split("\r\n")[1:])
            length = int(fields.get("content-length", "0"))
            if len(self._buffer) < end + 4 + length:
                return
            self._buffer = self._buffer[end + 4 + length :]
            _arrivals.setdefault(fields.get("webhook-id", ""), time.time())
            if _stall_seconds:
                asyncio.get_running_loop().call_later(_stall_seconds, self._answer)
            else:
                self._answer()

    def _answer(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(_ANSWER)  # type: ignore[attr-defined]  # a stream's transport


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(_Receiver, "127.0.0.1", port, backlog=2048)
    await stop.wait()
    server.close()


if __name__ == "__main__":
    _stall_seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    uvloop.run(_serve(int(sys.argv[1])))
    Path(sys.argv[2]).write_bytes(orjson.dumps(_arrivals))
