"""The controls of A10, A20, A23, and what is constant in time: a door with one thing missing lets in what is counted.

The product is patched at one seam for the block's time; the same request goes through it as it is, too.
"""

import asyncio
import contextlib
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from dispatcher.admin.auth import Auth
from dispatcher.admin.operations import deliveries as deliveries_module
from dispatcher.admin.operations.objects import delivery_with_attempts
from dispatcher.store import delivery_details
from dispatcher.store.tokens import Credentials
from tests.admin.conftest import ADMIN_TOKEN
from tests.admin.test_matrix import make_things

pytestmark = pytest.mark.postgres

MIB = 1024 * 1024


async def test_a10_control_bodies_for_every_role_show_a_viewer_what_is_inside(
    api, connection, monkeypatch
):
    things = await make_things(api, connection, "acme")
    await connection.execute(
        "INSERT INTO words.attempt (day, delivery_id, attempt_number, trigger, outcome, attempted_at,"
        " latency_seconds, reused, url, response_code, response_body)"
        " SELECT day, id, 1, 'scheduled', 'http_error', now(), 0.1, false, 'https://example.com', 500, 'internal'"
        " FROM words.delivery_open WHERE id = $1",
        things.delivery,
    )
    viewer = await api.token_of("viewer")

    async def shown() -> int:
        reply = await api.ask("GET", f"/deliveries/{things.delivery}", token=viewer)
        assert reply.status == 200
        return int(reply.raw.count(b"internal"))

    assert await shown() == 0
    monkeypatch.setattr(
        deliveries_module,
        "delivery_with_attempts",
        lambda row, attempts, **_: delivery_with_attempts(row, attempts, bodies=True),
    )
    assert await shown() == 1


async def test_a20_control_one_query_without_the_tenant_shows_anothers_delivery(
    api, connection, monkeypatch
):
    other = await make_things(api, connection, "other")
    token = await api.token_of("admin", "acme")
    path = f"/deliveries/{other.delivery}"
    assert (await api.ask("GET", path, token=token)).status == 404
    without = delivery_details._DELIVERY_FIND.replace("OR p.tenant = $3", "OR true")
    assert without != delivery_details._DELIVERY_FIND
    monkeypatch.setattr(delivery_details, "_DELIVERY_FIND", without)
    reply = await api.ask("GET", path, token=token)
    assert (reply.status, reply.json["tenant"]) == (200, "other")


@pytest.mark.parametrize(
    "text", ["", "x", ADMIN_TOKEN[:-1], ADMIN_TOKEN[:-1] + "x", "y" * 400, ADMIN_TOKEN]
)
async def test_a20_token_partly_right_is_compared_by_its_whole_digest(
    deployment, monkeypatch, text
):
    """How long a comparison takes can tell nothing: both sides are 32 bytes, and the database sees a digest alone."""
    compared: list[tuple[int, int]] = []
    asked: list[object] = []
    compare, find = hmac.compare_digest, Credentials.find_token

    def comparing(first: bytes, second: bytes) -> bool:
        compared.append((len(first), len(second)))
        return bool(compare(first, second))

    async def finding(self: Credentials, digest: bytes) -> object:
        asked.append(digest)
        return await find(self, digest)

    monkeypatch.setattr(hmac, "compare_digest", comparing)
    monkeypatch.setattr(Credentials, "find_token", finding)
    await Auth(deployment).actor_of(text, "192.0.2.1")
    assert compared == [(32, 32)]
    assert all(isinstance(digest, bytes) and len(digest) == 32 for digest in asked)


@asynccontextmanager
async def reading_all() -> AsyncIterator[int]:
    """A listener that reads a body before it looks at how large it is."""

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        return web.Response(status=413 if len(body) > MIB else 200)

    application = web.Application(client_max_size=0)
    application.router.add_post("/api/v1/endpoints", take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def bytes_taken(port: int, token: str, bytes_max: int = 32 * MIB) -> int:
    """Sends a body without an end in sight, until it is answered; returns how much was taken before that."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /api/v1/endpoints HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        + f"Authorization: Bearer {token}\r\nContent-Length: {bytes_max}\r\n\r\n".encode()
    )
    answer = asyncio.ensure_future(reader.readline())
    sent = 0
    with contextlib.suppress(OSError):
        while not answer.done() and sent < bytes_max:
            writer.write(b"x" * 65_536)
            sent += 65_536
            await writer.drain()
            await asyncio.sleep(0)
    async with asyncio.timeout(10):
        assert b" 413 " in await answer
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return sent


async def test_a23_control_reading_before_the_size_is_known_takes_all_of_it(api):
    ours = await bytes_taken(int(api.url.rpartition(":")[2]), api.token)
    async with reading_all() as port:
        theirs = await bytes_taken(port, api.token)
    assert theirs == 32 * MIB
    assert ours < 16 * MIB
