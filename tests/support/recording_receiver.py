"""A receiver in a process of its own that outlives every kill and writes down what it saw.

`python -m tests.support.recording_receiver LOG [CERTIFICATE]` prints its ports and then serves until
its standard input ends. One line goes to the log when a request is complete and one when its status
was handed to the kernel; both name connection, request number on it, path and marker, the first also
event id, delivery id, SHA-256 of the body, signature verdict and the header timestamp.

A line on standard input sets how paths behave, `{"/hook": {"statuses": [500, 200], "share": 0.3,
"delay_seconds": [0.0, 0.1], "secret": "..."}}`, and is answered with `ok`. `statuses` are taken in turn
by the attempts of one event, the last one for all that follow; `share` is the share of events to which
they apply, the others succeed. A status of 0 is never answered until the path's behaviour is set anew
with a status for it. It verifies signatures with nothing but the standard library; `secret` may be a
list, and the line says by `keys` which of them, by number, a request verifies with.
"""

import asyncio
import base64
import hashlib
import hmac
import os
import random
import re
import ssl
import sys
import time
from pathlib import Path
from typing import Any
from zlib import crc32

import orjson

HOST = os.environ.get("RECEIVER_HOST", "127.0.0.1")
MARKER = re.compile(rb'"marker":\s*"([^"]+)"')
EVENT_ID = re.compile(rb'^\{"id":"([^"]+)"')
REQUEST_ID = re.compile(rb'^\{"request_id":"([^"]+)"')


def verifying(headers: dict[bytes, bytes], body: bytes, secrets: list[str]) -> list[int] | None:
    """Returns which of the secrets the request verifies with; None where it is not signed."""
    for header, make in (
        (b"x-wms-signature", _wms),
        (b"x-webhook-signature", _humansoft),
        (b"webhook-signature", _standard),
    ):
        if header in headers:
            given = headers[header].split(b" ")
            wanted = [make(headers, body, secret) for secret in secrets]
            return [
                number
                for number, one in enumerate(wanted)
                if any(hmac.compare_digest(one, other) for other in given)
            ]
    return None


def _kept(headers: dict[bytes, bytes], body: bytes) -> dict[str, Any]:
    """Return a request whole, for a test that checks it against another rule."""
    texts = {name.decode(): value.decode("latin-1") for name, value in headers.items()}
    return {"headers": texts, "body": base64.b64encode(body).decode()}


def _wms(_: dict[bytes, bytes], body: bytes, secret: str) -> bytes:
    return b"sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest().encode()


def _humansoft(headers: dict[bytes, bytes], body: bytes, secret: str) -> bytes:
    content = headers.get(b"x-webhook-timestamp", b"") + b"." + body
    return b"sha256=" + hmac.new(secret.encode(), content, hashlib.sha256).hexdigest().encode()


def _standard(headers: dict[bytes, bytes], body: bytes, secret: str) -> bytes:
    content = b".".join(
        (headers.get(b"webhook-id", b""), headers.get(b"webhook-timestamp", b""), body)
    )
    key = base64.b64decode(secret.removeprefix("whsec_"))
    return b"v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest())


class Book:
    """The log, and how each path behaves."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
        self.behaviours: dict[str, dict[str, Any]] = {}
        self.attempts: dict[tuple[str, str], int] = {}
        self.held: list[Connection] = []
        self.connection_count = 0
        self.random = random.Random(7)  # noqa: S311 -- a delay, no secret

    def write(self, **line: object) -> None:
        os.write(self._descriptor, orjson.dumps({**line, "at": time.monotonic()}) + b"\n")

    def behave(self, behaviours: dict[str, dict[str, Any]]) -> None:
        """Takes new behaviours over; requests that are held on their paths are answered by them."""
        self.behaviours.update(behaviours)
        held, self.held = self.held, []
        for connection in held:
            connection.answer_held()


class Connection(asyncio.Protocol):
    """One connection; requests on it are answered one after the other."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._buffer = b""
        self._number = 0
        self._transport: asyncio.Transport | None = None
        self._waiting: tuple[str, str, int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._book.connection_count += 1
        self._name = self._book.connection_count

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lines = head.split(b"\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in lines[1:])
        }
        length = int(headers.get(b"content-length", b"0"))
        if len(rest) >= length:
            self._buffer = rest[length:]
            self._take(lines[0].split(b" ")[1].decode(), headers, rest[:length])

    def _take(self, path: str, headers: dict[bytes, bytes], body: bytes) -> None:
        self._number += 1
        behaviour = self._book.behaviours.get(path, {})
        match = MARKER.search(body)
        marker = match[1].decode() if match else ""
        attempt = self._book.attempts[path, marker] = self._book.attempts.get((path, marker), 0) + 1
        event_id = headers.get(b"webhook-id")
        if event_id is None:
            found = EVENT_ID.match(body) or REQUEST_ID.match(body)
            event_id = found[1] if found else b""
        known = behaviour.get("secret", "")
        keys = verifying(headers, body, known if isinstance(known, list) else [known])
        self._book.write(
            kind="request",
            connection=self._name,
            number=self._number,
            path=path,
            marker=marker,
            event_id=event_id.decode(),
            delivery_id=(
                headers.get(b"x-webhook-id") or headers.get(b"x-github-delivery", b"")
            ).decode(),
            sha256=hashlib.sha256(body).hexdigest(),
            signature="none" if keys is None else "good" if keys else "bad",
            keys=keys,
            signature_text=next(
                (v.decode() for k, v in headers.items() if k.endswith(b"-signature")), ""
            ),
            signed_at=(
                headers.get(b"webhook-timestamp") or headers.get(b"x-webhook-timestamp") or b""
            ).decode(),
            attempt=attempt,
            **(_kept(headers, body) if behaviour.get("keep_request") else {}),
        )
        low, high = behaviour.get("delay_seconds", (0.0, 0.0))
        if high:
            delay = self._book.random.uniform(low, high)
            asyncio.get_running_loop().call_later(delay, self._answer, path, marker, attempt)
        else:
            self._answer(path, marker, attempt)

    def answer_held(self) -> None:
        """Answers what was held, by the behaviour that its path has now."""
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._answer(*waiting)

    def _answer(self, path: str, marker: str, attempt: int) -> None:
        behaviour = self._book.behaviours.get(path, {})
        statuses = behaviour.get("statuses", [200])
        if crc32(marker.encode()) % 100 >= 100 * behaviour.get("share", 1.0):
            statuses = [200]
        status = statuses[min(attempt, len(statuses)) - 1]
        if status == 0:
            self._waiting = (path, marker, attempt)
            self._book.held.append(self)
            return
        if self._transport is None or self._transport.is_closing():
            return
        body = str(behaviour.get("body", "ok")).encode()
        extra = "".join(
            f"{name}: {value}\r\n" for name, value in behaviour.get("headers", {}).items()
        )
        self._transport.write(
            f"HTTP/1.1 {status} Scripted\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode()
            + body
        )
        self._book.write(
            kind="answer",
            connection=self._name,
            number=self._number,
            path=path,
            marker=marker,
            status=status,
        )


async def serve(log: Path, port: int, certificate: Path | None) -> None:
    """Serves until standard input ends; port 0: any."""
    loop = asyncio.get_running_loop()
    book = Book(log)
    servers = [await loop.create_server(lambda: Connection(book), HOST, port, backlog=1024)]
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        servers.append(await loop.create_server(lambda: Connection(book), HOST, 0, ssl=context))
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    sys.stdout.write(orjson.dumps(ports).decode() + "\n")
    sys.stdout.flush()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        book.behave(orjson.loads(line))
        sys.stdout.write("ok\n")
        sys.stdout.flush()


def main() -> None:
    """Serve as the command line asks."""
    log, port, *certificate = sys.argv[1:]
    asyncio.run(serve(Path(log), int(port), Path(certificate[0]) if certificate else None))


if __name__ == "__main__":
    main()
