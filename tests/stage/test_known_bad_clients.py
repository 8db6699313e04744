"""The controls of R2 to R9, R12 to R14, R16, R18, R25: a client that is wrong in one way breaks the row's figure.

Each plays the receiver of its row against a known-bad client and against our own sender: the one must
break the figure, the other must hold it, so that neither the receiver nor the figure can go soft.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable

import aiohttp
import pytest
from httptools import HttpResponseParser

from dispatcher.core import limits
from dispatcher.core.model import Outcome
from dispatcher.outbound.connection import Connection
from dispatcher.outbound.pool import Target
from tests.support.known_bad import REQUEST, Seen, connected, reads_on, status_by_its_number
from tests.support.pace import within
from tests.support.raw_receiver import (
    OK,
    RawReceiver,
    Script,
    Wire,
    answering,
    answering_once,
    dripping,
    flooding,
)
from tests.support.sending import Sender

DEADLINE_SECONDS = 0.2
LATE_SECONDS_MAX = 0.2
RAW_BYTES_MAX = 1_048_576


def target_of(receiver: RawReceiver) -> Target:
    return Target("http", "127.0.0.1", receiver.port)


async def session_answers(port: int, count: int) -> list[int | str]:
    """Posts with aiohttp's own session: each status, or the name of what was raised."""
    told: list[int | str] = []
    async with aiohttp.ClientSession() as session:
        for _ in range(count):
            try:
                async with session.post(f"http://127.0.0.1:{port}/", data=b"{}") as response:
                    await response.read()
                    told.append(response.status)
            except aiohttp.ClientError as error:
                told.append(type(error).__name__)
    return told


async def test_r2_control_a_deadline_on_the_head_alone_is_held_up_by_the_body(sender: Sender):
    async def thirty_drops(wire: Wire) -> None:
        await wire.request()
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n")
        for _ in range(30):
            wire.send(b"x")
            # Time is what is tested.
            await asyncio.sleep(0.03)

    async with RawReceiver(thirty_drops) as receiver, aiohttp.ClientSession() as session:
        began_at = time.monotonic()
        async with asyncio.timeout(DEADLINE_SECONDS):
            response = await session.post(f"http://127.0.0.1:{receiver.port}/")
        await response.read()
        assert time.monotonic() - began_at > DEADLINE_SECONDS + LATE_SECONDS_MAX
        ours = sender.answer(target_of(receiver), timeout_seconds=DEADLINE_SECONDS)
        await within(DEADLINE_SECONDS + LATE_SECONDS_MAX, ours)


FLOODS: dict[str, tuple[Script, Callable[[Seen], bool]]] = {
    "R3 reads all, then cuts": (
        flooding(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65_536),
        lambda _: True,
    ),
    "R5 takes any head": (
        flooding(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 4_096),
        lambda seen: seen.status is None,
    ),
    "R5 takes any trailers": (
        flooding(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"T: v\r\n" * 4_096
        ),
        lambda _: True,
    ),
    "R6 counts decoded bytes": (
        flooding(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"1;" + b"y" * 8_000 + b"\r\nx\r\n",
        ),
        lambda seen: seen.body_bytes < limits.RESPONSE_READ_BYTES_MAX,
    ),
    "R7 waits for the last answer": (
        flooding(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1_000),
        lambda seen: seen.status is None,
    ),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_control_a_client_without_the_bound_takes_whatever_a_flood_brings(
    sender: Sender, monkeypatch: pytest.MonkeyPatch, name: str
):
    """R3, R5, R6, R7: bytes read off the wire, until the test itself stops at eight times the bound."""
    flood, wants_more = FLOODS[name]
    ours = 0
    original = Connection.data_received

    def counting(self: Connection, data: bytes) -> None:
        nonlocal ours
        ours += len(data)
        original(self, data)

    monkeypatch.setattr(Connection, "data_received", counting)
    async with RawReceiver(flood) as receiver:
        theirs = await reads_on(receiver.port, wants_more)
        await sender.answer(target_of(receiver))
    assert theirs.raw_bytes > 2 * RAW_BYTES_MAX
    assert ours <= RAW_BYTES_MAX + 262_144  # what one read of the loop brings on top
    if name.startswith("R7"):
        assert theirs.interim_count > limits.INTERIM_ANSWERS_MAX


SURPLUS = [
    pytest.param(b"HTTP/1.1 204 No Content\r\n\r\nhello", 204, id="204 with a body"),
    pytest.param(b"HTTP/1.1 204 X\r\nContent-Length: 5\r\n\r\nhello", 204, id="204 with a length"),
    pytest.param(OK + b"surplus", 200, id="surplus"),
]


@pytest.mark.parametrize(("answer", "status"), SURPLUS)
async def test_r8_control_client_session_loses_a_success_with_excess_bytes(
    sender: Sender, answer: bytes, status: int
):
    async with RawReceiver(answering(answer)) as receiver:
        told = await session_answers(receiver.port, 4)
        ours = [await sender.answer(target_of(receiver)) for _ in range(4)]
    assert [one.status for one in ours] == [status] * 4
    assert told.count(status) < 4, "the control no longer fails: the row has lost its meaning"


@pytest.mark.parametrize(
    "rest",
    [b"Content-Length: 10\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"],
    ids=["length", "chunked"],
)
async def test_r9_control_a_client_that_needs_the_whole_body_fails_each_success(
    sender: Sender, rest: bytes
):
    async with RawReceiver(answering_once(b"HTTP/1.1 200 OK\r\n" + rest)) as receiver:
        told = await session_answers(receiver.port, 3)
        ours = [await sender.answer(target_of(receiver)) for _ in range(3)]
    assert told == ["ClientPayloadError"] * 3
    assert [one.outcome for one in ours] == [Outcome.OK] * 3


def _resets() -> Script:
    async def script(wire: Wire) -> None:
        await wire.request()
        wire.reset()

    return script


BROKEN: dict[str, tuple[Callable[[], Script], Outcome]] = {
    "reset": (_resets, Outcome.CONNECT_ERROR),
    "garbage": (lambda: answering(b"SSH-2.0-OpenSSH_9.2\r\n"), Outcome.PROTOCOL_ERROR),
    "TLS": (lambda: answering(b"\x15\x03\x01\x00\x02\x02\x46"), Outcome.PROTOCOL_ERROR),
    "silence": (lambda: dripping(b"", b""), Outcome.TIMEOUT),
}


async def test_r12_control_one_class_for_all_is_wrong_for_most(sender: Sender):
    async def as_one_class(port: int) -> Outcome:
        async with aiohttp.ClientSession() as session:
            try:
                async with asyncio.timeout(DEADLINE_SECONDS):
                    await session.post(f"http://127.0.0.1:{port}/", data=b"{}")
            except (aiohttp.ClientError, OSError):
                return Outcome.CONNECT_ERROR
        return Outcome.OK

    wrong = {"theirs": 0, "ours": 0}
    for script, outcome in BROKEN.values():
        async with RawReceiver(script()) as receiver:
            wrong["theirs"] += await as_one_class(receiver.port) is not outcome
            ours = await sender.answer(target_of(receiver), timeout_seconds=DEADLINE_SECONDS)
            wrong["ours"] += ours.outcome is not outcome
    assert wrong == {"theirs": 3, "ours": 0}


def _answers_early_then_reads_on() -> Script:
    """Answers when the head is there, and goes on reading what its Content-Length announced."""

    async def script(wire: Wire) -> None:
        await wire.head_began()
        wire.send(OK)
        await wire.request()
        await wire.gone.wait()

    return script


async def test_r13_control_connection_kept_after_early_response_loses_the_next(
    sender: Sender,
):
    """Ghost: an answer is taken for a request that the receiver took for a piece of the body before."""
    body = b"x" * 4_000_000
    second = REQUEST % (6, b"second")
    async with RawReceiver(_answers_early_then_reads_on()) as receiver:
        async with connected(receiver.port) as (reader, writer):
            writer.write((REQUEST % (len(body), body))[:100_000])
            assert await reader.readexactly(len(OK)) == OK
            # The answer is here, so the client keeps the connection and leaves the rest of the body.
            writer.write(second)
            await writer.drain()
            await receiver.wires[0].received(100_000 + len(second))
            assert second in bytes(receiver.wires[0]._bytes)
            assert receiver.requests == [], "the second was never seen as a request"
        for _ in range(2):
            await sender.answer(target_of(receiver), body=body)
        assert receiver.connection_count == 3
        assert not any(second in request.body for request in receiver.requests)


async def test_r14_control_a_write_without_a_deadline_holds_its_permit_on(sender: Sender):
    body = bytes(4_000_000)

    async def reads_nothing(wire: Wire) -> None:
        wire.stop_reading()
        await wire.gone.wait()

    async def deadline_on_the_answer_alone(port: int) -> None:
        async with connected(port) as (reader, writer):
            writer.write(REQUEST % (len(body), body))
            await writer.drain()
            async with asyncio.timeout(DEADLINE_SECONDS):
                await reader.readline()

    async with RawReceiver(reads_nothing, receive_buffer_bytes=4_096) as receiver:
        attempt = asyncio.get_running_loop().create_task(
            deadline_on_the_answer_alone(receiver.port)
        )
        answer = await sender.answer(
            target_of(receiver), body=body, timeout_seconds=DEADLINE_SECONDS
        )
        assert answer.outcome is Outcome.TIMEOUT
        await asyncio.wait([attempt], timeout=2 * DEADLINE_SECONDS)
        assert not attempt.done(), "twice its deadline ago it should have ended"
        attempt.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await attempt


NOT_HTTP = {
    "both framings": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "no version": b"HTTP/ 200 OK\r\n\r\n",
    "HTTP/2": b"HTTP/2 200\r\nContent-Length: 0\r\n\r\n",
}


async def test_r18_control_trusting_the_number_alone_makes_false_successes(sender: Sender):
    false_successes = {"theirs": 0, "ours": 0}
    for answer in NOT_HTTP.values():
        async with RawReceiver(answering(answer)) as receiver:
            false_successes["theirs"] += await status_by_its_number(receiver.port) == 200
            ours = await sender.answer(target_of(receiver))
            false_successes["ours"] += ours.outcome is Outcome.OK
    assert false_successes["ours"] == 0
    assert false_successes["theirs"] >= 3


async def test_r25_control_release_outside_finally_leaks_a_permit_per_cancel(
    sender: Sender,
):
    permits = 30
    free = asyncio.Semaphore(permits)

    async def attempt(port: int) -> None:
        await free.acquire()
        async with connected(port) as (reader, writer):
            writer.write(REQUEST % (2, b"{}"))
            await reader.readexactly(len(OK))
        free.release()

    async with RawReceiver(answering(OK)) as receiver:
        for turns in range(permits - 1):
            started = asyncio.get_running_loop().create_task(attempt(receiver.port))
            handle, _ = sender.start(target_of(receiver))
            for _ in range(turns):
                await asyncio.sleep(0)
            handle.cancel()
            started.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await started
        leaked = permits - free._value
    assert leaked > 0, "the control no longer fails: the row has lost its meaning"
    assert len(sender.pool._in_flight) == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_r16_control_a_client_that_follows_redirects_asks_inside(sender: Sender, status: int):
    async with RawReceiver(answering(OK)) as inside:
        answer = f"HTTP/1.1 {status} Moved\r\nLocation: http://127.0.0.1:{inside.port}/\r\nContent-Length: 0\r\n\r\n"
        async with RawReceiver(answering(answer.encode())) as receiver:
            ours = await sender.answer(target_of(receiver))
            assert (ours.status, len(inside.requests)) == (status, 0)
            assert await session_answers(receiver.port, 1) == [200], "a failure became a success"
            assert len(inside.requests) == 1


class _StatusOnly:
    """The callbacks of a reader that relies on the parser for the status line."""

    def __init__(self) -> None:
        self.parser = HttpResponseParser(self)
        self.status = 0

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()


@pytest.mark.parametrize("version", [b"RTSP/1.0", b"ICE/1.0", b"HTTP/0.9", b"HTTP/2.0"])
async def test_r18_control_the_parser_alone_accepts_other_protocols(sender: Sender, version: bytes):
    response = version + b" 200 OK\r\nContent-Length: 2\r\n\r\nok"
    known_bad = _StatusOnly()
    known_bad.parser.feed_data(response)
    assert known_bad.status == 200
    async with RawReceiver(answering_once(response)) as receiver:
        ours = await sender.answer(target_of(receiver))
    assert ours.outcome is Outcome.PROTOCOL_ERROR
