"""What an answer counts as, whatever bytes a receiver sends: rows R1 to R9, R16 and R18."""

import gzip
import time

import pytest

from dispatcher.core import limits
from dispatcher.core.model import Flag, Outcome
from dispatcher.outbound.pool import Target
from tests.support.pace import within
from tests.support.raw_receiver import (
    OK,
    RawReceiver,
    Wire,
    answering,
    answering_once,
    dripping,
    flooding,
    stalling,
)
from tests.support.sending import BODY, Sender

DEADLINE_SECONDS = 0.3
SLACK_SECONDS = 0.2
PATIENT_SECONDS = 3.0


def target_of(receiver: RawReceiver) -> Target:
    return Target("http", "127.0.0.1", receiver.port)


async def test_the_request_arrives_byte_for_byte(sender: Sender):
    async with RawReceiver(answering(OK)) as receiver:
        answer = await sender.answer(target_of(receiver))
    assert answer.outcome is Outcome.OK
    assert answer.status == 200
    assert answer.peer == "127.0.0.1"
    assert receiver.requests[0].body == BODY
    assert receiver.requests[0].head.startswith(b"POST /hook HTTP/1.1\r\n")


async def test_phases_are_told_for_a_new_connection_and_not_again(sender: Sender):
    async with RawReceiver(answering(OK)) as receiver:
        target = target_of(receiver)
        first, second = await sender.answer(target), await sender.answer(target)
    assert first.phases.connect is not None
    assert first.phases.wait is not None
    assert not first.reused
    assert second.phases.connect is None
    assert second.reused


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(OK, id="content-length"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", id="204"),
        pytest.param(b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", id="no reason phrase"),
        pytest.param(
            b"HTTP/1.1 200 \xe9\xff\r\nX: \xe9\r\nContent-Length: 0\r\n\r\n", id="latin-1"
        ),
        pytest.param(b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", id="bare LF"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", id="space before colon"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok", id="obs-fold"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2;x=y\r\nok\r\n0\r\nT: v\r\n\r\n",
            id="chunked with extension and trailer",
        ),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + OK, id="100"),
        pytest.param(
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + OK,
            id="103 and 102",
        ),
    ],
)
async def test_a_sound_answer_is_a_success_and_keeps_the_connection(sender: Sender, answer: bytes):
    async with RawReceiver(answering(answer)) as receiver:
        target = target_of(receiver)
        for _ in range(3):
            result = await sender.answer(target)
            assert (result.outcome, result.flags) == (Outcome.OK, ())
    assert receiver.connection_count == 1
    assert sender.pool.reused_count == 2


async def test_an_answer_in_single_bytes_is_read(sender: Sender):
    async def script(wire: Wire) -> None:
        while await wire.request() is not None:
            for number in OK:
                wire.send(bytes([number]))

    async with RawReceiver(script) as receiver:
        for _ in range(2):
            assert (await sender.answer(target_of(receiver))).outcome is Outcome.OK


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", id="1.0"),
        pytest.param(
            b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
            id="1.0 keep-alive",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", id="close"
        ),
    ],
)
async def test_an_answer_that_ends_its_connection_is_a_success_and_not_kept(
    sender: Sender, answer: bytes
):
    async with RawReceiver(answering(answer)) as receiver:
        target = target_of(receiver)
        for _ in range(2):
            result = await sender.answer(target)
            assert (result.outcome, result.flags) == (Outcome.OK, ())
    assert receiver.connection_count == 2


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_a_body_that_the_end_of_the_connection_delimits_is_complete(
    sender: Sender, version: bytes
):
    async with RawReceiver(answering_once(b"HTTP/" + version + b" 500 No\r\n\r\nwhy")) as receiver:
        answer = await sender.answer(target_of(receiver))
    assert (answer.outcome, answer.body, answer.flags) == (Outcome.HTTP_ERROR, b"why", ())


async def test_the_body_is_kept_of_failures_only(sender: Sender):
    failure = b"HTTP/1.1 500 No\r\nContent-Length: 3\r\n\r\nwhy"
    async with RawReceiver(answering(failure, OK)) as receiver:
        target = target_of(receiver)
        failed, succeeded = await sender.answer(target), await sender.answer(target)
    assert (failed.body, succeeded.body) == (b"why", b"")
    assert failed.error == "the receiver responded with 500"
    assert receiver.connection_count == 1


@pytest.mark.shows("L3")
async def test_four_kibibytes_of_a_failure_are_kept(sender: Sender):
    body = bytes(range(256)) * 32
    head = f"HTTP/1.1 500 No\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    async with RawReceiver(answering(head + body)) as receiver:
        answer = await sender.answer(target_of(receiver))
    assert answer.body == body[: limits.RESPONSE_KEPT_BYTES_MAX]
    assert answer.flags == ()


@pytest.mark.parametrize(
    "size", [limits.RESPONSE_READ_BYTES_MAX, limits.RESPONSE_READ_BYTES_MAX + 1]
)
@pytest.mark.shows("L3")
async def test_the_body_cap_is_exact(sender: Sender, size: int):
    answer_bytes = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode() + bytes(size)
    async with RawReceiver(answering(answer_bytes)) as receiver:
        answer = await sender.answer(target_of(receiver))
    over = size > limits.RESPONSE_READ_BYTES_MAX
    assert answer.flags == ((Flag.BODY_TRUNCATED,) if over else ())
    assert len(target_of(receiver).idle) == 0


async def test_retry_after_is_handed_on_unjudged(sender: Sender):
    answer_bytes = b"HTTP/1.1 429 Slow\r\nretry-AFTER:  9e99 \r\nContent-Length: 0\r\n\r\n"
    async with RawReceiver(answering(answer_bytes)) as receiver:
        answer = await sender.answer(target_of(receiver))
    assert (answer.outcome, answer.retry_after) == (Outcome.THROTTLED, "9e99")


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"X: " + b"y" * 65_000 + b"\r\nContent-Length: 2\r\n", id="long line"),
        pytest.param(b"X: " + b"y" * 65_531 + b"\r\nContent-Length: 2\r\n", id="65536 bytes"),
        pytest.param(b"Content-Length: 2\r\nContent-Length: 2\r\n", id="repeated"),
        pytest.param(b"content-length: 2\r\nX: y\r\nCONTENT-LENGTH : 2\r\n", id="other case"),
        pytest.param(b"Content-Length: 2, 2\r\n", id="list"),
        pytest.param(b"Content-Length: 2\r\n" * 3, id="three times"),
        pytest.param(b"Content-Length: 2\nContent-Length: 2\n", id="bare LF"),
    ],
)
@pytest.mark.parametrize("interim", [b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"])
async def test_a_long_line_or_a_repeated_length_is_a_success(
    sender: Sender, head: bytes, interim: bytes
):
    response = interim + b"HTTP/1.1 200 OK\r\n" + head + b"\r\nok"
    async with RawReceiver(answering(response)) as receiver:
        target = target_of(receiver)
        for _ in range(3):
            result = await sender.answer(target)
            assert (result.outcome, result.flags) == (Outcome.OK, ())
    assert receiver.connection_count == 1


async def test_a_retry_after_behind_a_long_line_is_honoured(sender: Sender):
    head = b"HTTP/1.1 429 Slow\r\nX: " + b"y" * 60_000 + b"\r\nRetry-After: 7\r\n"
    async with RawReceiver(answering(head + b"Content-Length: 0\r\n\r\n")) as receiver:
        answer = await sender.answer(target_of(receiver))
    assert (answer.outcome, answer.retry_after) == (Outcome.THROTTLED, "7")


# --- R1, R2: drips -------------------------------------------------------------------------------


async def test_r1_dripped_headers_end_at_the_deadline(sender: Sender):
    async with RawReceiver(dripping(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n")) as receiver:
        began_at = time.monotonic()
        answer = await within(
            DEADLINE_SECONDS + SLACK_SECONDS,
            sender.answer(target_of(receiver), timeout_seconds=DEADLINE_SECONDS),
        )
        took_seconds = time.monotonic() - began_at
    assert answer.outcome is Outcome.TIMEOUT
    assert took_seconds >= DEADLINE_SECONDS
    assert "head of its response within 0.3 s" in (answer.error or "")


async def test_r1_silence_ends_at_the_deadline(sender: Sender):
    async with RawReceiver(stalling(b"")) as receiver:
        answer = await sender.answer(target_of(receiver), timeout_seconds=DEADLINE_SECONDS)
        await receiver.wires[0].gone.wait()
    assert (answer.outcome, answer.error) == (Outcome.TIMEOUT, "no response within 0.3 s")


@pytest.mark.parametrize(
    ("status", "outcome"), [(b"200", Outcome.OK), (b"503", None), (b"404", Outcome.HTTP_ERROR)]
)
async def test_r2_a_dripped_body_leaves_the_status_that_was_seen(
    sender: Sender, status: bytes, outcome: Outcome | None
):
    start = b"HTTP/1.1 " + status + b" X\r\nContent-Length: 100\r\n\r\n"
    async with RawReceiver(dripping(start + b"xxx", b"x")) as receiver:
        answer = await sender.answer(target_of(receiver), timeout_seconds=DEADLINE_SECONDS)
        if answer.status is None:  # a busy machine let it pass before the head arrived
            answer = await sender.answer(target_of(receiver), timeout_seconds=PATIENT_SECONDS)
        await receiver.wires[-1].gone.wait()
    assert answer.status == int(status)
    assert answer.outcome is outcome or outcome is None
    assert answer.flags == (Flag.BODY_TRUNCATED,)
    assert answer.body.startswith(b"" if outcome is Outcome.OK else b"xxx")


# --- R3 to R7: floods ----------------------------------------------------------------------------

_ENDLESS = [
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", b"x" * 65536, id="cl"),
    pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536, id="until close"),
    pytest.param(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"4000\r\n" + b"x" * 0x4000 + b"\r\n",
        id="chunked",
    ),
]


@pytest.mark.parametrize(("start", "piece"), _ENDLESS)
async def test_r3_an_endless_body_is_cut_and_the_receiver_sees_the_close(
    sender: Sender, start: bytes, piece: bytes
):
    async with RawReceiver(flooding(start, piece)) as receiver:
        answer = await sender.answer(target_of(receiver))
        await within(1.0, receiver.wires[0].gone.wait())
    assert (answer.outcome, answer.flags) == (Outcome.OK, (Flag.BODY_TRUNCATED,))


async def test_r4_a_gzip_bomb_stays_raw(sender: Sender):
    bomb = gzip.compress(bytes(50_000_000), mtime=0)
    assert len(bomb) < limits.RESPONSE_READ_BYTES_MAX
    head = b"HTTP/1.1 500 No\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    async with RawReceiver(answering(head + bomb)) as receiver:
        answer = await sender.answer(target_of(receiver))
    assert answer.body == bomb[: limits.RESPONSE_KEPT_BYTES_MAX]
    assert answer.flags == ()


@pytest.mark.parametrize(
    ("start", "piece", "error"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nX: ", b"y" * 65536, "head has more than", id="R5 line"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 4096, "more than 128 headers", id="R5 n"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nX: " + b"y" * 65_532 + b"\r\nZ: z\r\n",
            b"",
            "a header line",
            id="R5 64 KiB",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\n" + (b"X: " + b"y" * 20_000 + b"\r\n") * 5,
            b"",
            "bytes",
            id="R5 sum",
        ),
        pytest.param(b"HTTP/1.1 200 ", b"O" * 65536, "head has more than", id="R5 reason"),
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100, "interim", id="R7"),
    ],
)
async def test_r5_r7_a_flood_ahead_of_the_status_is_a_protocol_error(
    sender: Sender, start: bytes, piece: bytes, error: str
):
    script = flooding(start, piece) if piece else stalling(start)
    async with RawReceiver(script) as receiver:
        answer = await sender.answer(target_of(receiver))
        await receiver.wires[0].gone.wait()
    assert (answer.outcome, answer.status) == (Outcome.PROTOCOL_ERROR, None)
    assert error in (answer.error or "")


async def test_r7_sixteen_interim_answers_are_allowed(sender: Sender):
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: " + b"x" * 4000 + b"\r\n\r\n"
    async with RawReceiver(answering(interim * limits.INTERIM_ANSWERS_MAX + OK)) as receiver:
        assert (await sender.answer(target_of(receiver))).outcome is Outcome.OK


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        pytest.param(b"0\r\n", b"T: v\r\n" * 1000, id="R5 trailers"),
        pytest.param(b"1;x=", b"y" * 65536, id="R6 one extension"),
        pytest.param(b"", b"1;" + b"y" * 8000 + b"\r\nx\r\n", id="R6 many extensions"),
    ],
)
async def test_r5_r6_a_flood_behind_a_success_is_cut(sender: Sender, start: bytes, piece: bytes):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with RawReceiver(flooding(head + start, piece)) as receiver:
        sending = sender.answer(target_of(receiver), timeout_seconds=30.0)
        answer = await within(2.0, sending)
        await within(2.0, receiver.wires[0].gone.wait())
    assert (answer.outcome, answer.flags) == (Outcome.OK, (Flag.BODY_TRUNCATED,))


# --- R8, R9: more or less than was said ----------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\nhello", 204),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", 204),
        (b"HTTP/1.1 204 X\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 204),
        (OK + b"surplus", 200),
        (OK + OK, 200),
        (OK + b"HTTP/1.1 5", 200),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\nsurplus", 200),
    ],
)
async def test_r8_surplus_is_a_sloppy_success_and_never_kept(
    sender: Sender, answer: bytes, status: int
):
    async with RawReceiver(answering(answer)) as receiver:
        target = target_of(receiver)
        for _ in range(2):
            result = await sender.answer(target)
            assert (result.outcome, result.status) == (Outcome.OK, status)
            assert result.flags == (Flag.SLOPPY,)
    assert receiver.connection_count == 2


@pytest.mark.parametrize("status", [b"200", b"500"])
@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 10\r\n\r\nabc",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n",
    ],
)
async def test_r9_a_short_body_leaves_the_status(sender: Sender, status: bytes, rest: bytes):
    async with RawReceiver(answering_once(b"HTTP/1.1 " + status + b" X\r\n" + rest)) as receiver:
        answer = await sender.answer(target_of(receiver))
    assert answer.status == int(status)
    assert answer.flags == (Flag.BODY_INCOMPLETE,)


# --- R16, R18: answers that are no success -------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_r16_a_redirect_is_a_failure_that_shows_where_to(sender: Sender, status: int):
    location = b"http://169.254.169.254/latest/meta-data"
    head = b"HTTP/1.1 %d Moved\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % (status, location)
    async with RawReceiver(answering(head)) as receiver:
        answer = await sender.answer(target_of(receiver))
        assert len(receiver.requests) == 1
    assert (answer.outcome, answer.status) == (Outcome.HTTP_ERROR, status)
    assert answer.location == location.decode()
    assert "redirects are not followed" in (answer.error or "")


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="both framings",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", id="two lengths"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok", id="a list of two lengths"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 02\r\n\r\nok", id="02"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n 3\r\n\r\nok",
            id="a repeated length that is folded",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\nContent-Length: x\r\n\r\nok", id="no digits"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="repeated length and chunked",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", id="negative length"),
        pytest.param(b"HTTP/2 200\r\nContent-Length: 0\r\n\r\n", id="HTTP/2 line"),
        pytest.param(b"HTTP/1.1 0 OK\r\n\r\n", id="status 0"),
        pytest.param(b"HTTP/1.1 099 OK\r\n\r\n", id="status 099"),
        pytest.param(b"HTTP/1.1 1000 OK\r\n\r\n", id="status 1000"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="SSH"),
        pytest.param(b"<html></html>", id="no head"),
        pytest.param(b"\x00\x01\x02", id="binary"),
    ],
)
async def test_r18_what_is_not_http_is_a_protocol_error(sender: Sender, answer: bytes):
    async with RawReceiver(answering(answer)) as receiver:
        target = target_of(receiver)
        for _ in range(2):
            result = await sender.answer(target)
            assert (result.outcome, result.status) == (Outcome.PROTOCOL_ERROR, None)
    assert receiver.connection_count == 2


STATUS_LINES_OF_NO_SUCCESS = [
    b"RTSP/1.0 200 OK",
    b"ICE/1.0 200 OK",
    b"HTTP/0.9 200 OK",
    b"HTTP/1.2 200 OK",
    b"HTTP/2.0 200 OK",
    b"HTTP/2 200 OK",
    b"HTTP/3.0 200 OK",
    b"HTTP/1 200 OK",
    b"HTTP/1.10 200 OK",
    b"HTTP/01.1 200 OK",
    b"http/1.1 200 OK",
    b"HTTP/1.1 2000 OK",
    b"HTTP/1.1 0200 OK",
    b"HTTP/1.1 20 OK",
    b"HTTP/1.1 +20 OK",
    b"HTTP/1.1 200OK",
    b"HTTP/1.1200 OK",
    b"HTTP/1.1  200 OK",
    b"HTTP/1.1\t200 OK",
    b"HTTP/1.1 200 O\rK",
    b"HTTP/1.1 200 O\x00K",
    b"HTTP/1.1 200 OK\r\n folded",
    b"200 OK",
    b" HTTP/1.1 200 OK",
    b"\r\nHTTP/1.1 200 OK",
    b"\nHTTP/1.1 200 OK",
    b"\xef\xbb\xbfHTTP/1.1 200 OK",
    b"garbage HTTP/1.1 200 OK",
    b"garbage\r\nHTTP/1.1 200 OK",
]


@pytest.mark.parametrize("line", STATUS_LINES_OF_NO_SUCCESS)
@pytest.mark.parametrize(
    "before",
    [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\nLink: x\n\n"],
    ids=["first", "after 100", "after 103"],
)
async def test_r18_only_http_1_0_and_1_1_can_succeed(sender: Sender, before: bytes, line: bytes):
    response = before + line + b"\r\nContent-Length: 2\r\n\r\nok"
    async with RawReceiver(answering_once(response)) as receiver:
        answer = await sender.answer(target_of(receiver))
    assert (answer.outcome, answer.status) == (Outcome.PROTOCOL_ERROR, None)


@pytest.mark.parametrize("line", [b"HTTP/1.1 101 Switching", b"RTSP/1.0 101 Switching"])
async def test_r18_a_switch_of_protocols_hides_no_success(sender: Sender, line: bytes):
    switch = line + b"\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
    async with RawReceiver(answering_once(switch + OK)) as receiver:
        answer = await sender.answer(target_of(receiver))
    assert answer.outcome in (Outcome.HTTP_ERROR, Outcome.PROTOCOL_ERROR)
    assert answer.status in (101, None)


async def test_r18_an_interim_answer_alone_is_no_answer(sender: Sender):
    async with RawReceiver(answering_once(b"HTTP/1.1 100 Continue\r\n\r\n")) as receiver:
        answer = await sender.answer(target_of(receiver))
    assert (answer.outcome, answer.status) == (Outcome.PROTOCOL_ERROR, None)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 999 Denied\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    ],
)
async def test_r18_odd_statuses_fail_and_are_never_kept(sender: Sender, answer: bytes):
    async with RawReceiver(answering(answer)) as receiver:
        target = target_of(receiver)
        for _ in range(2):
            result = await sender.answer(target)
            assert result.outcome in (Outcome.HTTP_ERROR, Outcome.PROTOCOL_ERROR)
    assert receiver.connection_count == 2
