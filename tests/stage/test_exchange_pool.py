"""Which connections are used again, and what becomes of those that die: R10 to R14."""

import asyncio
import errno
import gc
import os
import resource
import socket
import ssl
import time
from pathlib import Path

import aiohttp
import pytest

from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.model import Flag, HttpResponse, Outcome
from dispatcher.outbound.connection import Connection
from dispatcher.outbound.dialer import Egress
from dispatcher.outbound.pool import Connections, NotAttempted, Target
from dispatcher.outbound.tls import make_tls_context
from tests.support.certificates import Authority
from tests.support.clock import ManualClock
from tests.support.pace import within
from tests.support.raw_receiver import OK, RawReceiver, Script, Wire, answering
from tests.support.sending import Sender, spawn

GHOST = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nghost"
REAL = b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\nreal"
ROUNDS = 20


def target_of(receiver: RawReceiver) -> Target:
    return Target("http", "127.0.0.1", receiver.port)


def descriptor_count() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def tls_target_of(receiver: RawReceiver, authority: Authority) -> Target:
    return Target("https", "127.0.0.1", receiver.port, tls=make_tls_context(ca_pem=authority.pem))


# --- R10: answers that nobody asked for ----------------------------------------------------------


def haunting() -> Script:
    """Answers every request properly, and sends one more answer when told to."""

    async def script(wire: Wire) -> None:
        while await wire.request() is not None:
            wire.send(REAL)

    return script


async def test_r10_an_unsolicited_answer_is_never_taken(sender: Sender):
    async with RawReceiver(haunting()) as receiver:
        target = target_of(receiver)
        for round_number in range(ROUNDS):
            answer = await sender.answer(target)
            assert (answer.status, answer.body) == (500, b"real"), round_number
            assert not answer.reused
            receiver.wires[-1].send(GHOST)
            # Half of them are read by the loop while idle, half are found by the probe.
            if round_number % 2:
                await receiver.wires[-1].gone.wait()
    assert receiver.connection_count == ROUNDS
    assert len(receiver.requests) == ROUNDS


async def test_r10_what_lies_unread_in_the_kernel_is_found_by_the_probe(sender: Sender):
    async with RawReceiver(haunting()) as receiver:
        target = target_of(receiver)
        await sender.answer(target)
        ghost_socket = receiver.wires[0]._transport.get_extra_info("socket")
        # Past the loop, so that our side cannot have read it before it sends again.
        os.write(ghost_socket.fileno(), GHOST)
        answer = await sender.answer(target)
    assert (answer.status, answer.reused) == (500, False)


async def test_r10_control_a_plain_client_session_takes_the_ghost():
    async with RawReceiver(haunting()) as receiver, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{receiver.port}/"
        async with session.post(url, data=b"x") as response:
            assert await response.read() == b"real"
        ghost_socket = receiver.wires[0]._transport.get_extra_info("socket")
        os.write(ghost_socket.fileno(), GHOST)
        async with session.post(url, data=b"x") as response:
            taken = await response.read()
    assert taken == b"ghost", "the control no longer fails: the row has lost its meaning"


# --- R11: stale connections ----------------------------------------------------------------------


def closing_on_the_second() -> Script:
    """Answers the first request of each connection, and closes when the second comes."""

    async def script(wire: Wire) -> None:
        await wire.request()
        wire.send(OK)
        await wire.head_began()
        wire.close()

    return script


async def test_r11_a_stale_connection_costs_no_attempt(sender: Sender):
    async with RawReceiver(closing_on_the_second()) as receiver:
        target = target_of(receiver)
        for _ in range(ROUNDS):
            answer = await sender.answer(target)
            assert (answer.outcome, answer.reused) == (Outcome.OK, False)
    assert sender.pool.stale_count >= 1


async def test_r11_control_a_plain_client_session_fails_the_post():
    failures = 0
    async with (
        RawReceiver(closing_on_the_second()) as receiver,
        aiohttp.ClientSession() as session,
    ):
        url = f"http://127.0.0.1:{receiver.port}/"
        for _ in range(ROUNDS):
            try:
                async with session.post(url, data=b"x") as response:
                    await response.read()
            except aiohttp.ClientError:
                failures += 1
    assert failures, "the control no longer fails: the row has lost its meaning"


async def test_r11_keep_alive_goes_off_after_three_stale_connections(sender: Sender):
    async with RawReceiver(closing_on_the_second()) as receiver:
        target = target_of(receiver)
        for _ in range(10):
            await sender.answer(target)
    assert sender.pool.stale_count == 3
    assert target.idle == []


async def test_r11_a_closed_idle_connection_is_noticed_before_it_is_used(sender: Sender):
    async def script(wire: Wire) -> None:
        await wire.request()
        wire.send(OK)
        wire.close()

    async with RawReceiver(script) as receiver:
        target = target_of(receiver)
        for _ in range(ROUNDS):
            assert (await sender.answer(target)).outcome is Outcome.OK
    assert sender.pool.stale_count < ROUNDS


async def test_r11_a_fresh_connection_that_dies_is_not_tried_again(sender: Sender):
    async def script(wire: Wire) -> None:
        await wire.request()
        wire.close()

    async with RawReceiver(script) as receiver:
        answer = await sender.answer(target_of(receiver))
    assert answer.outcome is Outcome.CONNECT_ERROR
    assert receiver.connection_count == 1


async def test_r11_a_reused_connection_that_dies_in_mid_head_is_not_tried_again(sender: Sender):
    async def script(wire: Wire) -> None:
        await wire.request()
        wire.send(OK)
        await wire.request()
        wire.send(b"HTTP/1.1 20")
        wire.close()

    async with RawReceiver(script) as receiver:
        target = target_of(receiver)
        await sender.answer(target)
        answer = await sender.answer(target)
    assert (answer.outcome, answer.reused) == (Outcome.PROTOCOL_ERROR, True)
    assert receiver.connection_count == 1


# --- R12: how connections break ------------------------------------------------------------------


async def test_r12_a_reset_is_a_connect_error(sender: Sender):
    async def script(wire: Wire) -> None:
        await wire.request()
        wire.reset()

    async with RawReceiver(script) as receiver:
        answer = await sender.answer(target_of(receiver))
    assert answer.outcome is Outcome.CONNECT_ERROR
    assert "connection broke before a response" in (answer.error or "")


async def test_r12_tls_spoken_on_a_plain_port_is_said_to_be_so(sender: Sender):
    alert = b"\x15\x03\x01\x00\x02\x02\x46"
    async with RawReceiver(answering(alert)) as receiver:
        answer = await sender.answer(target_of(receiver))
    assert answer.outcome is Outcome.PROTOCOL_ERROR
    assert "https" in (answer.error or "")


async def test_a_receiver_that_speaks_first_is_refused(sender: Sender):
    async def script(wire: Wire) -> None:
        wire.send(GHOST)
        await wire.gone.wait()

    async with RawReceiver(script) as receiver:
        target = target_of(receiver)
        taken = 0
        for _ in range(ROUNDS):
            answer = await sender.answer(target, timeout_seconds=1.0)
            taken += answer.outcome is Outcome.OK
            assert not any(request.body == b"ghost" for request in receiver.requests)
    # What arrives between the probe and our first byte cannot be told from an early answer.
    assert taken < ROUNDS


# --- R13, R14: receivers that do not read --------------------------------------------------------


def answering_early(answer: bytes) -> Script:
    async def script(wire: Wire) -> None:
        await wire.head_began()
        wire.stop_reading()
        wire.send(answer)
        await wire.gone.wait()

    return script


@pytest.mark.parametrize("is_tls", [False, True])
@pytest.mark.parametrize("size", [60_000, 4_000_000])
async def test_r13_an_early_answer_counts_and_its_connection_is_never_kept(
    sender: Sender, authority: Authority, size: int, is_tls: bool
):
    tls = authority.server_context("127.0.0.1") if is_tls else None
    async with RawReceiver(answering_early(OK), tls=tls, receive_buffer_bytes=4096) as receiver:
        target = tls_target_of(receiver, authority) if is_tls else target_of(receiver)
        answer = await sender.answer(target, body=bytes(size))
        assert target.idle == []
        # It reads nothing, so only the end of the connection lets this come.
        receiver.wires[0]._transport.resume_reading()
        await receiver.wires[0].gone.wait()
    assert (answer.outcome, answer.flags) == (Outcome.OK, ())


async def test_r14_a_receiver_that_never_reads_ends_at_the_deadline(sender: Sender):
    async def script(wire: Wire) -> None:
        wire.stop_reading()
        await wire.gone.wait()

    body = bytes(4_000_000)
    async with RawReceiver(script, receive_buffer_bytes=4096) as receiver:
        target = target_of(receiver)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answer = await within(0.5, sender.answer(target, body=body, timeout_seconds=0.3))
        grown_bytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert answer.outcome is Outcome.TIMEOUT
    assert "had not read the whole request" in (answer.error or "")
    assert grown_bytes <= len(body)


@pytest.mark.parametrize("is_tls", [False, True])
async def test_a_large_body_arrives_whole_and_its_connection_is_kept(
    sender: Sender, authority: Authority, is_tls: bool
):
    tls = authority.server_context("127.0.0.1") if is_tls else None
    body = os.urandom(1_200_000)
    async with RawReceiver(answering(OK), tls=tls) as receiver:
        target = tls_target_of(receiver, authority) if is_tls else target_of(receiver)
        for _ in range(2):
            assert (await sender.answer(target, body=body)).outcome is Outcome.OK
    assert [request.body == body for request in receiver.requests] == [True, True]


# --- TLS -----------------------------------------------------------------------------------------


async def test_connections_over_tls_are_used_again(sender: Sender, authority: Authority):
    tls = authority.server_context("127.0.0.1")
    async with RawReceiver(answering(OK), tls=tls) as receiver:
        target = tls_target_of(receiver, authority)
        for _ in range(ROUNDS):
            assert (await sender.answer(target)).outcome is Outcome.OK
    assert sender.pool.reused_count >= 0.95 * (ROUNDS - 1)


async def test_r3_an_endless_body_over_tls_is_cut_at_once(sender: Sender, authority: Authority):
    async def script(wire: Wire) -> None:
        await wire.request()
        wire.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while await wire.drain():
            wire.send(bytes(65536))

    tls = authority.server_context("127.0.0.1")
    async with RawReceiver(script, tls=tls) as receiver:
        answer = await sender.answer(tls_target_of(receiver, authority))
        await within(1.0, receiver.wires[0].gone.wait())
    assert (answer.outcome, answer.flags) == (Outcome.OK, (Flag.BODY_TRUNCATED,))


async def test_a_dirty_tls_connection_is_gone_at_once(sender: Sender, authority: Authority):
    async def script(wire: Wire) -> None:
        await wire.request()
        wire.send(OK + b"surplus")
        # A polite close would wait for this receiver's farewell, for half a minute.
        wire.stop_reading()
        await wire.gone.wait()

    tls = authority.server_context("127.0.0.1")
    async with RawReceiver(script, tls=tls) as receiver:
        answer = await sender.answer(tls_target_of(receiver, authority))
        assert answer.flags == (Flag.SLOPPY,)
        async with asyncio.timeout(1.0):
            await sender.pool.aclose()


class BufferingTransport(asyncio.Transport):
    """A transport that has taken what was written and not handed it on."""

    def __init__(self, made: socket.socket) -> None:
        super().__init__({"socket": made, "peername": ("127.0.0.1", 1)})
        self.is_aborted = False

    def write(self, data: object) -> None:
        del data

    def get_write_buffer_size(self) -> int:
        return 1

    def abort(self) -> None:
        self.is_aborted = True


def test_r13_a_small_request_that_has_not_left_keeps_no_connection():
    heard: list[bool] = []

    class Hearing:
        head = b"POST / HTTP/1.1\r\n\r\n"
        body = b""

        def answered(self, answer: HttpResponse, *, reusable: bool) -> None:
            del answer
            heard.append(reusable)

        def unanswered(self, answer: HttpResponse) -> None:
            raise AssertionError(answer)

    ours, theirs = socket.socketpair()
    with ours, theirs:
        transport = BufferingTransport(ours)
        connection = Connection(transport, release=print, on_lost=print, monotonic=time.monotonic)
        connection.begin(Hearing(), 0.0)
        connection.data_received(OK)
    assert heard == [False]
    assert transport.is_aborted


# --- The pool ------------------------------------------------------------------------------------


async def test_many_at_once_each_get_their_own_answer(sender: Sender):
    async def script(wire: Wire) -> None:
        while (request := await wire.request()) is not None:
            wire.send(
                b"HTTP/1.1 500 No\r\nContent-Length: %d\r\n\r\n%b"
                % (len(request.body), request.body)
            )

    async with RawReceiver(script) as receiver:
        target = target_of(receiver)
        bodies = [f"{number}".encode() for number in range(200)]
        futures = [sender.start(target, body=body)[1] for body in bodies]
        answers = [await future for future in futures]
        assert [getattr(answer, "body", None) for answer in answers] == bodies
        again = [sender.start(target, body=body)[1] for body in bodies]
        results = [await future for future in again]
        assert all(getattr(result, "reused", False) for result in results)


async def test_idle_connections_are_closed_in_time(sender: Sender):
    pool = Connections(sender.egress, spawn=spawn, idle_seconds_max=0.1)
    async with RawReceiver(answering(OK)) as receiver:
        await Sender(sender.egress, pool).answer(target_of(receiver))
        await receiver.wires[0].gone.wait()
        await pool.aclose()


async def test_an_old_connection_is_not_used_again(sender: Sender):
    pool = Connections(sender.egress, spawn=spawn, age_seconds_max=0.0)
    async with RawReceiver(answering(OK)) as receiver:
        target = target_of(receiver)
        own = Sender(sender.egress, pool)
        for _ in range(2):
            assert not (await own.answer(target)).reused
        await pool.aclose()


async def test_dropping_a_target_closes_its_idle_connections_only(sender: Sender):
    async with RawReceiver(answering(OK)) as first, RawReceiver(answering(OK)) as second:
        dropped, kept = target_of(first), target_of(second)
        await sender.answer(dropped)
        await sender.answer(kept)
        sender.pool.drop(dropped)
        await first.wires[0].gone.wait()
        assert (await sender.answer(kept)).reused
        assert not (await sender.answer(dropped)).reused


async def test_dropping_a_target_lets_a_busy_connection_finish(sender: Sender):
    released = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        await released.wait()
        wire.send(OK)
        await wire.gone.wait()

    async with RawReceiver(script) as receiver:
        target = target_of(receiver)
        _, future = sender.start(target)
        await receiver.asked(1)
        sender.pool.drop()
        released.set()
        answer = await future
        assert isinstance(answer, HttpResponse)
        assert answer.outcome is Outcome.OK
        await receiver.wires[0].gone.wait()


async def test_a_cancelled_attempt_is_not_told_and_its_connection_ends(sender: Sender):
    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.gone.wait()

    async with RawReceiver(script) as receiver:
        handle, future = sender.start(target_of(receiver))
        await receiver.asked(1)
        handle.cancel()
        handle.cancel()
        await receiver.wires[0].gone.wait()
        assert not future.done()
    assert len(sender.pool._in_flight) == 0


async def test_r25_cancels_at_any_turn_leak_nothing(sender: Sender):
    async with RawReceiver(answering(OK)) as receiver:
        target = target_of(receiver)
        for turns in range(30):
            handle, future = sender.start(target)
            for _ in range(turns):
                await asyncio.sleep(0)
            handle.cancel()
            assert future.done() or len(sender.pool._in_flight) == 0
        assert (await sender.answer(target)).outcome is Outcome.OK
    await sender.pool.aclose()
    assert len(sender.pool._open) == 0


async def test_closing_ends_everything_and_tells_nobody(sender: Sender):
    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.gone.wait()

    async with RawReceiver(script) as receiver:
        descriptors = descriptor_count()
        futures = [sender.start(target_of(receiver))[1] for _ in range(10)]
        await receiver.asked(10)
        opening = [sender.start(target_of(receiver))[1] for _ in range(10)]
        await asyncio.sleep(0)
        await sender.pool.aclose()
        for wire in receiver.wires:
            await wire.gone.wait()
        assert not any(future.done() for future in futures + opening)
    gc.collect()
    assert descriptor_count() <= descriptors


async def test_sending_after_closing_attempts_nothing(sender: Sender):
    await sender.pool.aclose()
    result = await sender.result(Target("http", "127.0.0.1", 1024))
    assert result == NotAttempted("shutting down")


async def test_f7_running_out_of_descriptors_is_no_attempt(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
):
    async with RawReceiver(answering(OK)) as receiver:
        target = target_of(receiver)
        with monkeypatch.context() as patched:

            def refuse(*_: object) -> socket.socket:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

            patched.setattr("dispatcher.outbound.dialer.socket.socket", refuse)
            result = await sender.result(target)
        assert result == NotAttempted("Too many open files")
        assert (await sender.answer(target)).outcome is Outcome.OK


@pytest.mark.parametrize("is_kept", [True, False], ids=["ours", "control"])
async def test_f7_sockets_to_receivers_leave_the_kept_descriptors_free(
    policy: AddressPolicy, *, is_kept: bool
):
    async with RawReceiver(answering(OK)) as receiver:
        # The first socket would be given this number: the range below is taken.
        with socket.socket() as free:
            first_kept = free.fileno()
        egress = Egress(policy, None, first_kept_descriptor=first_kept if is_kept else None)
        pool = Connections(egress, spawn=spawn)
        result = await Sender(egress, pool).result(target_of(receiver))
        await pool.aclose()
        await egress.aclose()
        if is_kept:
            assert result == NotAttempted("Too many open files")
        else:
            assert isinstance(result, HttpResponse)
            assert result.outcome is Outcome.OK


async def test_f7_idle_connection_at_the_bound_yields_to_another_receiver(
    sender: Sender,
):
    pool = Connections(sender.egress, spawn=spawn, open_count_max=2)
    sending = Sender(sender.egress, pool)
    async with (
        RawReceiver(answering(OK)) as first,
        RawReceiver(answering(OK)) as second,
        RawReceiver(answering(OK)) as third,
    ):
        targets = [target_of(receiver) for receiver in (first, second, third)]
        for target in targets:
            assert (await sending.answer(target)).outcome is Outcome.OK
        await first.wires[0].gone.wait()
        assert [len(target.idle) for target in targets] == [0, 1, 1]
        assert len(pool._open) == 2
        await pool.aclose()


async def test_a_refused_port_is_a_connect_error_that_keeps_the_address(sender: Sender):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    answer = await sender.answer(Target("http", "127.0.0.1", port))
    assert answer.outcome is Outcome.CONNECT_ERROR
    assert answer.error == "the receiver cannot be reached: Connection refused"
    assert answer.peer == "127.0.0.1"


async def test_r15_opening_ends_at_the_timeout_of_the_attempt(sender: Sender, authority: Authority):
    async def script(wire: Wire) -> None:
        await wire.gone.wait()

    # A plain listener never answers a TLS greeting.
    async with RawReceiver(script) as receiver:
        opening = sender.answer(tls_target_of(receiver, authority), timeout_seconds=0.2)
        answer = await within(0.4, opening)
        await receiver.wires[0].gone.wait()
    assert answer.outcome is Outcome.TIMEOUT
    assert answer.error == "the receiver did not finish the TLS handshake within 0.2 s"


async def test_r15_a_slow_handshake_within_the_timeout_succeeds(
    sender: Sender, authority: Authority
):
    """Opening once ended after 5 s, whatever the endpoint's timeout was."""
    clock = ManualClock()
    pool = Connections(sender.egress, spawn=spawn, monotonic=clock.monotonic)
    greeted, go_on = asyncio.Event(), asyncio.Event()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        greeting = await reader.read(65_536)
        greeted.set()
        await go_on.wait()
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", receiver.port)
        up_writer.write(greeting)
        async with asyncio.TaskGroup() as group:
            group.create_task(_copy(reader, up_writer))
            group.create_task(_copy(up_reader, writer))

    tls = authority.server_context("127.0.0.1")
    async with (
        RawReceiver(answering(OK), tls=tls) as receiver,
        await asyncio.start_server(relay, "127.0.0.1", 0) as slow,
    ):
        context = make_tls_context(ca_pem=authority.pem)
        port = slow.sockets[0].getsockname()[1]
        target = Target("https", "127.0.0.1", port, tls=context)
        _, result = Sender(sender.egress, pool).start(target, timeout_seconds=20.0)
        await greeted.wait()
        clock.advance(10.0)
        # Two sweeps of the deadlines.
        await asyncio.sleep(0.12)
        assert not result.done()
        go_on.set()
        answer = await result
        await pool.aclose()
    assert isinstance(answer, HttpResponse)
    assert answer.outcome is Outcome.OK


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()


def test_a_target_over_https_needs_a_context():
    with pytest.raises(ValueError, match="TLS context"):
        Target("https", "127.0.0.1", 443)
    with pytest.raises(ValueError, match="TLS context"):
        Target("http", "127.0.0.1", 80, tls=ssl.create_default_context())
