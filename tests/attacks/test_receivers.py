"""R1 to R7, R14, A27 together: each hostile receiver costs one deadline and less than a mebibyte of memory."""

import asyncio
import gzip
import time
import tracemalloc

import aiohttp
import pytest

from dispatcher.core.model import Outcome
from dispatcher.outbound.pool import Target
from tests.support.hostile_receivers import HEAD, HOSTILE
from tests.support.pace import within
from tests.support.raw_receiver import OK, RawReceiver, Wire, answering
from tests.support.sending import Sender

DEADLINE_SECONDS = 1.0
LATE_SECONDS_MAX = 0.25
MEMORY_BYTES_MAX = 1_048_576


@pytest.mark.parametrize("name", sorted(HOSTILE))
@pytest.mark.shows("G8")
async def test_a_hostile_receiver_costs_one_deadline_and_little_memory(sender: Sender, name: str):
    async with RawReceiver(HOSTILE[name]()) as receiver:
        target = Target("http", "127.0.0.1", receiver.port)
        tracemalloc.start()
        before = tracemalloc.take_snapshot()
        answer = await within(
            DEADLINE_SECONDS + LATE_SECONDS_MAX,
            sender.answer(target, timeout_seconds=DEADLINE_SECONDS),
        )
        after = tracemalloc.take_snapshot()
        tracemalloc.stop()
    ours = [tracemalloc.Filter(inclusive=True, filename_pattern="*/dispatcher/*")]
    grown = sum(
        difference.size_diff
        for difference in after.filter_traces(ours).compare_to(
            before.filter_traces(ours), "filename"
        )
    )
    assert answer.outcome in {Outcome.OK, Outcome.TIMEOUT, Outcome.PROTOCOL_ERROR}
    assert grown <= MEMORY_BYTES_MAX
    assert len(answer.body) <= 4_096
    assert len(sender.pool._in_flight) == 0


async def test_control_a_client_that_decompresses_takes_fifty_times_the_bound():
    bomb = gzip.compress(b"\0" * 50_000_000)
    head = HEAD + f"Content-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n".encode()
    async with (
        RawReceiver(answering(head + bomb)) as receiver,
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{receiver.port}/") as response,
    ):
        assert len(await response.read()) > 40 * MEMORY_BYTES_MAX


async def test_control_idle_timeout_alone_is_never_reached_by_a_drip():
    """R1: each byte begins the time anew."""

    async def drip(wire: Wire) -> None:
        if await wire.request() is None:
            return
        wire.send(HEAD)
        for _ in range(12):
            wire.send(b"X: y\r\n")
            if not await _pause(wire, 0.2):
                return
        wire.send(b"Content-Length: 0\r\n\r\n")

    began = time.monotonic()
    timeout = aiohttp.ClientTimeout(total=None, sock_read=1.0)
    async with (
        RawReceiver(drip) as receiver,
        aiohttp.ClientSession(timeout=timeout) as session,
        session.post(f"http://127.0.0.1:{receiver.port}/") as response,
    ):
        assert response.status == 200
    assert time.monotonic() - began > 2 * 1.0


async def _pause(wire: Wire, seconds: float) -> bool:
    """Waits so long, or until the peer is gone."""
    try:
        async with asyncio.timeout(seconds):
            await wire.gone.wait()
    except TimeoutError:
        return True
    return False


async def test_a27_a_cookie_that_a_receiver_sets_is_never_sent(sender: Sender):
    answer = OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: session=1; Path=/\r\n\r\n")
    async with RawReceiver(answering(answer)) as receiver:
        target = Target("http", "127.0.0.1", receiver.port)
        for _ in range(3):
            assert (await sender.answer(target)).outcome is Outcome.OK
        assert all(b"cookie" not in request.head.lower() for request in receiver.requests)


async def test_a27_control_a_client_with_its_default_jar_sends_it_back():
    answer = OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: session=1; Path=/\r\n\r\n")
    jar = aiohttp.CookieJar(unsafe=True)
    async with (
        RawReceiver(answering(answer)) as receiver,
        aiohttp.ClientSession(cookie_jar=jar) as session,
    ):
        for _ in range(2):
            async with session.post(f"http://127.0.0.1:{receiver.port}/") as response:
                await response.read()
        assert b"Cookie: session=1" in receiver.requests[1].head
