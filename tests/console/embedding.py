"""A page of another site that embeds the portal, and a daemon that allows it."""

import html
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import orjson

from tests.console.conftest import ADMIN_TOKEN


class _Application(BaseHTTPRequestHandler):
    """A page of a customer's application: a heading and the frame."""

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        link, width = query.get("link", [""])[0], query.get("width", ["1200"])[0]
        page = (
            "<!doctype html><html lang=en><title>Application</title>"
            "<style>body{margin:0;font:16px system-ui}header{padding:12px 16px;background:#23303f;color:#fff}"
            "iframe{border:0;display:block;width:100%;height:720px}</style>"
            "<header>Example application · Settings · Webhooks</header>"
            f'<iframe src="{html.escape(link)}" width="{html.escape(width)}" title="Webhooks"></iframe>'
        )
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, *_: object) -> None:
        pass


class Application:
    """An application on `localhost`, which is another site than the portal's 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self.origin = f"http://localhost:{port}"

    def page(self, link: str) -> str:
        """Return the address of the page that embeds a link."""
        return f"{self.origin}/?link={quote(link, safe='')}"


@contextmanager
def application() -> Iterator[Application]:
    """Serve an application until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Application)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Application(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def create_link(base: str, **fields: Any) -> dict[str, Any]:
    """Create a portal link over the API, as an application's server does."""
    request = urllib.request.Request(  # noqa: S310 -- the daemon of the test
        f"{base}/api/v1/portal-links",
        data=orjson.dumps(fields),
        headers={"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 -- as above
        created: dict[str, Any] = orjson.loads(answer.read())
    # The daemon's port was chosen by the system, and its setting names none.
    created["url"] = base + urlsplit(created["url"]).path
    return created
