"""A receiver that requires a client certificate and an access token, and the token endpoint that grants it."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import orjson

from tests.support.certificates import Authority

TOKEN = "granted-by-the-token-endpoint"  # noqa: S105 -- of the tests


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def respond(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def log_message(self, *_: object) -> None:
        pass


class _Tokens(_Handler):
    def do_POST(self) -> None:
        self.body()
        self.respond(200, orjson.dumps({"access_token": TOKEN, "expires_in": 3600}))


class _Guarded(_Handler):
    received: ClassVar[list[bytes]]
    peers: ClassVar[list[object]]

    def do_POST(self) -> None:
        body = self.body()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.respond(401, b'{"error": "an access token is required"}')
            return
        assert isinstance(self.connection, ssl.SSLSocket)
        self.peers.append(self.connection.getpeercert())
        self.received.append(body)
        self.respond(200, b'{"accepted": true}')


class Guarded:
    """The two servers; `received` has the bodies that were accepted, `peers` the certificate of each."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.received: list[bytes] = []
        self.peers: list[object] = []
        handler = type("Handler", (_Guarded,), {"received": self.received, "peers": self.peers})
        tls = self.authority.server_context("127.0.0.1")
        tls.verify_mode = ssl.CERT_REQUIRED
        tls.load_verify_locations(cadata=self.authority.pem)
        guarded = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        guarded.socket = tls.wrap_socket(
            guarded.socket, server_side=True, do_handshake_on_connect=False
        )
        self.servers = [guarded, ThreadingHTTPServer(("127.0.0.1", 0), _Tokens)]
        self.url = f"https://127.0.0.1:{guarded.server_port}/hooks/orders"
        self.token_url = f"http://127.0.0.1:{self.servers[1].server_port}/oauth/token"


@contextmanager
def guarded_receiver(folder: Path) -> Iterator[Guarded]:
    """Serve both until the block ends."""
    both = Guarded(folder)
    threads = [threading.Thread(target=one.serve_forever, daemon=True) for one in both.servers]
    for thread in threads:
        thread.start()
    try:
        yield both
    finally:
        for server in both.servers:
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()
