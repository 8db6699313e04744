"""The reader of answers: how the bytes were cut on their way makes no difference."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core import limits
from dispatcher.core.model import Flag
from dispatcher.outbound.response_parser import ResponseReader

ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\nContent-Length : 2\n\nok",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n1\r\n!\r\n0\r\nT: v\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: /a\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 500 No\r\n\r\nuntil the end",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    b"HTTP/2 200\r\n\r\n",
    b"RTSP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 103 E\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: y\r\ncontent-length:2\r\n\r\nokHTTP/1.1",
    b"HTTP/1.1 500 No\r\nContent-Length: 9000\r\n\r\n" + b"x" * 9000,
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 65_533 + b"\r\nZ: z\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 129 + b"\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 17,
]


def read(reader: ResponseReader, pieces: list[bytes]) -> tuple[object, ...]:
    is_over = False
    for piece in pieces:
        is_over = reader.feed(piece)
        if is_over:
            break
    return (
        is_over,
        reader.status,
        reader.flag,
        reader.error,
        reader.is_keep_alive,
        reader.body(),
        reader.headers(),
        reader.header(b"location"),
        reader.header(b"retry-after"),
    )


@given(answer=st.sampled_from(ANSWERS), data=st.data())
def test_the_pieces_that_bytes_come_in_make_no_difference(answer: bytes, data: st.DataObject):
    # Bytes that come after the answer has ended are the pool's: it closes the connection.
    end = answer.find(b"okHTTP/1.1") + len(b"ok")
    places = st.integers(0, len(answer)).filter(lambda place: place != end)
    cuts = data.draw(st.lists(places, max_size=12).map(sorted))
    ends = [*cuts, len(answer)]
    pieces = [answer[start:end] for start, end in zip([0, *cuts], ends, strict=True) if start < end]
    assert read(ResponseReader(), pieces) == read(ResponseReader(), [answer])


@given(turns=st.lists(st.sampled_from([0, 1, 2, 3, 4, 5]), min_size=1, max_size=6))
def test_an_answer_is_read_alike_whatever_came_before_it(turns: list[int]):
    reader = ResponseReader()
    for turn in turns:
        reader.begin()
        assert read(reader, [ANSWERS[turn]]) == read(ResponseReader(), [ANSWERS[turn]])
        assert reader.is_keep_alive


def test_a_body_that_repeats_the_previous_answer_is_body():
    reader = ResponseReader()
    assert reader.feed(ANSWERS[0])
    reader.begin()
    assert not reader.feed(b"HTTP/1.1 500 No\r\nContent-Length: %d\r\n\r\n" % len(ANSWERS[0]))
    assert reader.feed(ANSWERS[0])
    assert (reader.status, reader.body()) == (500, ANSWERS[0])


@pytest.mark.parametrize("keeps_successes", [False, True])
def test_an_answer_that_repeats_the_previous_one_is_read_alike(keeps_successes: bool):
    for answer in ANSWERS:
        reader = ResponseReader(keeps_successes=keeps_successes)
        first = read(reader, [answer])
        if reader.is_keep_alive and reader.flag is None:
            reader.begin()
            assert read(reader, [answer]) == first
            reader.begin()
            surplus = read(reader, [answer + b"HTTP"])
            assert surplus == read(
                ResponseReader(keeps_successes=keeps_successes), [answer + b"HTTP"]
            )


def test_interim_answers_do_not_count_into_the_final_head():
    reader = ResponseReader()
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: " + b"x" * 4000 + b"\r\n\r\n"
    for _ in range(limits.INTERIM_ANSWERS_MAX):
        assert not reader.feed(interim)
    assert reader.feed(ANSWERS[0])
    assert (reader.status, reader.error) == (200, "")


def test_answer_of_failure_keeps_whole_header_lines_only():
    lines = b"Server: x\r\nX-A: \xff\x1b[31m\r\n\tfolded\r\n"
    failure = b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 500 No\r\n" + lines
    reader = ResponseReader()
    reader.feed(failure + b"\r\nbody")
    assert reader.headers() == b"Server: x\nX-A: \xff\x1b[31m\n\tfolded"
    reader = ResponseReader()
    reader.feed(failure + b"Y: " + b"y" * limits.RESPONSE_HEADERS_KEPT_BYTES_MAX + b"\r\n\r\n")
    assert reader.headers() == b"Server: x\nX-A: \xff\x1b[31m\n\tfolded"


def test_answer_of_success_is_kept_only_on_request():
    success = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 2\r\n\r\nok"
    reader, keeping = ResponseReader(), ResponseReader(keeps_successes=True)
    assert reader.feed(success)
    assert keeping.feed(success)
    assert (reader.headers(), reader.body()) == (b"", b"")
    assert (keeping.headers(), keeping.body()) == (b"Server: x\nContent-Length: 2", b"ok")


@given(first=st.binary(max_size=200), second=st.binary(max_size=200))
def test_any_bytes_end_in_a_status_or_in_words(first: bytes, second: bytes):
    reader = ResponseReader()
    if reader.feed(first) or reader.feed(second):
        assert bool(reader.status) != bool(reader.error)
    else:
        assert reader.error == ""


@given(rest=st.binary(max_size=300))
def test_a_status_once_seen_stays_whatever_follows(rest: bytes):
    reader = ResponseReader()
    reader.feed(b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n")
    reader.feed(rest)
    assert (reader.status, reader.error) == (202, "")


@pytest.mark.parametrize(
    ("answer", "is_clean", "flag"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nbody", True, None),
        (b"HTTP/1.1 200 OK\r\n\r\nbody", False, Flag.BODY_INCOMPLETE),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody", True, Flag.BODY_INCOMPLETE),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", True, Flag.BODY_INCOMPLETE),
    ],
)
def test_an_end_completes_only_a_body_without_framing(
    answer: bytes, is_clean: bool, flag: Flag | None
):
    reader = ResponseReader()
    assert not reader.feed(answer)
    reader.end(is_clean=is_clean)
    assert reader.flag is flag
