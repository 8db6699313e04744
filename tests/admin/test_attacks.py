"""A20, A23, A24 over the API: guessing, hostile bodies, floods; all of it costs little and is refused."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine

import pytest

from dispatcher.admin import auth, rate_limits
from tests.admin.serving import Api, Reply
from tests.support.pace import cpu_cost
from tests.support.raw_receiver import RawReceiver, answering

pytestmark = pytest.mark.postgres

MIB = 1024 * 1024
PASSES_MAX = 40.0
"""CPU time of one body, in passes of plain Python over as many bytes; a quadratic scan takes hours."""
ANSWER_BYTES_MAX = 65_536
GOOD = {"name": "ERP", "url": "https://example.com/hooks", "event_types": ["*"]}


def filled(make: Callable[[int], bytes], head: bytes, tail: bytes, size: int = MIB) -> bytes:
    """Returns a body of just under `size` bytes: head, as many pieces as fit, tail."""
    pieces, room, number = [], size - len(head) - len(tail), 0
    while room > 64:
        piece = make(number)
        pieces.append(piece)
        room -= len(piece) + 1
        number += 1
    return head + b",".join(pieces) + tail


BODIES = {
    "names, one of them twice": filled(
        lambda n: b'"n%d":""' % (n or 1), b'{"name":"x","labels":{"n1":"",', b"}}"
    ),
    "names of members": filled(lambda n: b'"n%d":0' % n, b"{", b"}"),
    "wrong labels": filled(lambda n: b'"N %d":""' % n, b'{"labels":{', b"}}"),
    "wrong headers": filled(lambda n: b'"h %d":""' % n, b'{"headers":{', b"}}"),
    "wrong event types": filled(lambda n: b'"T%d"' % n, b'{"event_types":[', b"]}"),
    "texts with NUL": filled(lambda _: rb'"\u0000"', b'{"event_types":[', b"]}"),
    "half a surrogate": filled(lambda _: rb'"\ud800"', b'{"event_types":[', b"]}"),
    "delays": filled(lambda _: b"-1", b'{"retry_schedule_seconds":[', b"]}"),
    "one long number": b'{"rate_limit":' + b"9" * (MIB - 32) + b"}",
    "one long text": b'{"name":"' + b"n" * (MIB - 32) + b'"}',
    "one long URL": b'{"url":"https://' + b"a." * (MIB // 2 - 32) + b'"}',
    "one long certificate": b'{"ca_pem":"' + b"-" * (MIB - 32) + b'"}',
    "one long secret": b'{"secret":"' + b"s" * (MIB - 32) + b'"}',
    "deep lists": b'{"labels":' + b"[" * (MIB - 32) + b"}",
    "deep objects": b'{"labels":' + b'{"":' * (MIB // 4 - 32) + b"}",
    "quotes": b'{"' + b'\\"' * (MIB // 2 - 32),
    "spaces": b"{" + b" " * (MIB - 32) + b"}",
    "backslashes": b'{"name":"' + b"\\" * (MIB - 32) + b'"}',
}


async def cost(work: Coroutine[None, None, Reply], size: int) -> tuple[Reply, float]:
    """Return the response and its CPU time, in passes of plain Python over the body."""
    with cpu_cost() as measured:
        reply = await work
    return reply, measured.passes(size)


@pytest.mark.parametrize("path", ["/endpoints", "/tokens", "/jobs"])
@pytest.mark.shows("L1")
async def test_a_hostile_body_is_refused_at_little_cost(api, path):
    unlike = {}
    for name, body in BODIES.items():
        assert len(body) <= MIB
        reply, passes = await cost(api.ask("POST", path, raw=body), MIB)
        is_problem = reply.headers["Content-Type"].startswith("application/problem+json")
        small = len(reply.raw) <= ANSWER_BYTES_MAX and passes <= PASSES_MAX
        if reply.status not in {400, 422} or not is_problem or not small:
            unlike[name] = (reply.status, len(reply.raw), passes)
    assert unlike == {}


LARGE_DATA = {
    "names many times": filled(lambda n: b'"n%d":%d' % (n % 1000, n), b"{", b"}", MIB - 1),
    "many objects": filled(lambda _: b"{}", b'{"a":[', b"]}", MIB - 1),
    "one long number": b'{"a":' + b"1" * (MIB - 32) + b"}",
    "half surrogates": b'{"a":"' + rb"\ud800" * (MIB // 6 - 32) + b'"}',
}


async def test_data_of_the_largest_size_is_taken_as_it_is_at_little_cost(api):
    for name, data in LARGE_DATA.items():
        body = b'{"type":"order.created","data":' + data + b"}"
        reply, passes = await cost(api.ask("POST", "/events", raw=body), MIB)
        assert (name, reply.status, data in reply.raw) == (name, 201, True)
        assert (name, passes) <= (name, PASSES_MAX)


@pytest.mark.parametrize("framing", ["Content-Length: {}", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize(("path", "size"), [("/endpoints", MIB + 1), ("/events", 2**30)])
@pytest.mark.shows("L1")
async def test_a_body_beyond_its_routes_bound_is_refused_before_it_is_read(
    api, path, size, framing
):
    port = api.url.rpartition(":")[2]
    reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
    head = f"POST /api/v1{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.token}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\n{framing.format(size)}\r\n\r\n".encode())
    answer = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
    piece = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    sent = 0
    try:
        while not answer.done() and sent < 64 * MIB:
            writer.write(piece)
            sent += len(piece)
            with contextlib.suppress(OSError):
                await writer.drain()
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            status, _, headers = (await answer).partition(b"\r\n")
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    assert status.split()[1] == b"413"
    assert b"Connection: close" in headers
    assert sent < 16 * MIB


EXPECTATIONS = {
    "asked for": ("100-continue", "TOKEN", 40, [b"100", b"201"]),
    "asked for, whatever the case": ("100-Continue", "TOKEN", 40, [b"100", b"201"]),
    "without a token": ("100-continue", "wrong", 40, [b"401"]),
    "too large": ("100-continue", "TOKEN", 2**31, [b"413"]),
    "of no meaning": ("nonsense", "TOKEN", 40, [b"201"]),
    "of no meaning, without a token": ("nonsense", "wrong", 40, [b"401"]),
}


@pytest.mark.parametrize("name", EXPECTATIONS)
async def test_a_body_is_asked_for_once_token_and_size_are_good(api, name):
    expect, token, size, wanted = EXPECTATIONS[name]
    body = b'{"type":"order.created","data":{"a":12}}'
    assert len(body) == 40
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    writer.write(
        f"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\nExpect: {expect}\r\n"
        f"Authorization: Bearer {token.replace('TOKEN', api.token)}\r\n"
        "Content-Type: application/json\r\n\r\n".encode()
    )
    if b"100" not in wanted and size == len(body):
        writer.write(body)
    statuses: list[bytes] = []
    head = b""
    async with asyncio.timeout(5):
        while len(statuses) < len(wanted):
            head = await reader.readuntil(b"\r\n\r\n")
            statuses.append(head.split()[1])
            if statuses == [b"100"]:
                writer.write(body)
    writer.transport.abort()
    assert statuses == wanted
    assert statuses[-1] == b"201" or b"Content-Type: application/problem+json" in head


@pytest.mark.shows("L2")
async def test_data_beyond_its_bound_is_a_fault_of_the_field(api):
    body = b'{"type":"order.created","data":{"a":"' + b"x" * MIB + b'"}}'
    reply = await api.ask("POST", "/events", raw=body)
    assert (reply.status, reply.faults) == (422, ["data"])


async def test_guesses_are_slowed_down_and_lock_nobody_out(api):
    known = await api.token_of("viewer")
    assert (await api.ask("GET", "/endpoints", token=known)).status == 200
    statuses = [
        (await api.ask("GET", "/endpoints", token=f"dsp_{n:043}")).status
        for n in range(auth.WRONG_BURST + 3)
    ]
    assert statuses == [401] * auth.WRONG_BURST + [429] * 3
    refused = await api.ask("GET", "/endpoints", token="dsp_" + "x" * 43)
    assert 1 <= int(refused.headers["Retry-After"]) <= 1 / auth.WRONG_PER_SECOND
    assert (await api.ask("GET", "/endpoints", token=known)).status == 200


async def test_tests_and_resends_are_no_weapon(api):
    """A24: by endpoint and person, whoever of the two routes is used."""
    endpoint = (
        await api.ask("POST", "/endpoints", GOOD | {"url": "https://127.0.0.1:1025/"})
    ).json["id"]
    path = f"/endpoints/{endpoint}/test"
    statuses = [(await api.ask("POST", path)).status for _ in range(rate_limits.SENDS_BURST + 3)]
    assert statuses[: rate_limits.SENDS_BURST] == [200] * rate_limits.SENDS_BURST
    assert 429 in statuses
    other = await api.token_of("operator")
    assert (await api.ask("POST", path, token=other)).status == 200


STRANGE_PATHS = [
    "/endpoints/%00",
    "/endpoints/ep_%ED%A0%80",
    "/events/%FF",
    "/deliveries/wh_" + "z" * 4000,
    "/deliveries/wh_7zzzzzzzzzh77777777777777z",
    "/events/..%2F..%2Fetc%2Fpasswd",
    "/endpoints/' OR 1=1 --",
    "/nothing",
]


async def test_a_strange_path_is_not_found(api):
    for path in STRANGE_PATHS:
        reply = await api.ask("GET", path)
        assert (path, reply.status, reply.json["status"]) == (path, 404, 404)


STRANGE_QUERIES = [
    "limit=0",
    "limit=501",
    "limit=-1",
    "limit=1e9",
    "limit=1&limit=2",
    "cursor=",
    "cursor=%00",
    "cursor=" + "A" * 4000,
    "cursor=MHx4",
    "nothing=1",
    "since=yesterday",
    "since=0001-01-01T00:00:00%2B23:59",
    "until=2026-05-29T14:32:11",
    "state=lost",
    "test=maybe",
    "label=x",
    "label==x",
    "tenant=%00",
    "event_type=" + "a" * 4000,
]


async def test_a_strange_query_is_told_by_its_parameter(api):
    for query in STRANGE_QUERIES:
        reply = await api.ask("GET", f"/deliveries?{query}")
        field = query.partition("=")[0]
        assert (query, reply.status) == (query, 422)
        assert {one["field"] for one in reply.json["errors"]} <= {field, "query"}


async def test_a_cursor_is_for_its_own_list_filter_and_tenant(api):
    for number in range(3):
        for tenant in ("acme", "other"):
            made = GOOD | {"name": f"n{number}", "tenant": tenant}
            assert (await api.ask("POST", "/endpoints", made)).status == 201
    page = await api.ask("GET", "/endpoints?limit=1&tenant=acme")
    cursor = page.json["next_cursor"]
    assert (await api.ask("GET", f"/endpoints?limit=1&tenant=acme&cursor={cursor}")).status == 200
    for other in (
        f"/endpoints?limit=1&tenant=other&cursor={cursor}",
        f"/endpoints?limit=1&tenant=acme&state=paused&cursor={cursor}",
        f"/deliveries?limit=1&cursor={cursor}",
        f"/endpoints?limit=1&tenant=acme&cursor={cursor[:-1]}",
    ):
        reply = await api.ask("GET", other)
        assert (other, reply.status) == (other, 422)
        assert reply.faults == ["cursor"]


FORMS = [
    ({"Content-Type": "text/plain"}, 415),
    ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ({"Content-Encoding": "gzip"}, 415),
    ({"Content-Encoding": "identity"}, 201),
    ({"Content-Type": "application/json; charset=utf-8"}, 201),
]


async def test_only_plain_json_is_read(api):
    for number, (headers, status) in enumerate(FORMS):
        fields = GOOD | {"name": f"n{number}"}
        assert (await api.ask("POST", "/endpoints", fields, headers=headers)).status == status


async def test_another_method_is_told_which_there_are(api: Api):
    for path, allow in (("/endpoints", {"GET", "POST"}), ("/deliveries/wh_x/resend", {"POST"})):
        reply = await api.ask("PUT", path)
        assert (reply.status, reply.json["status"]) == (405, 405)
        assert allow <= set(reply.headers["Allow"].split(", "))


async def test_head_answers_as_get_without_a_body(api):
    path = "/endpoints"
    assert (await api.ask("HEAD", path)).raw == b""
    assert (await api.ask("HEAD", path)).status == 200
    assert (await api.ask("OPTIONS", path)).headers["Allow"]
    assert "Access-Control-Allow-Origin" not in (await api.ask("OPTIONS", path)).headers


STEERING_HEAD = (
    b"HTTP/1.1 302 F\r\nLocation: http://x/\x00\x1b[31m\x9b\xe2y\r\nContent-Length: 0\r\n\r\n"
)


async def test_a_test_event_records_whatever_the_receiver_sent(api, connection):
    """D1: a NUL has no place in a Postgres text, and an escape sequence none in front of a person."""
    async with RawReceiver(answering(STEERING_HEAD)) as receiver:
        url = f"http://127.0.0.1:{receiver.port}/"
        made = await api.ask("POST", "/endpoints", GOOD | {"url": url, "profile": "wms"})
        sent = await api.ask("POST", f"/endpoints/{made.json['id']}/test")
    assert sent.status == 200
    assert "http://x/\\x00\\x1b[31m\\x9b" in sent.json["attempts"][0]["error"]
    assert await connection.fetchval("SELECT count(*) FROM dispatcher.attempt") == 1
