"""Events over HTTP: one at a time, in groups that share a commit, and in batches."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from dispatcher.admin.operations.publishing import Publisher
from dispatcher.cli.session import deployment_of
from dispatcher.config.settings_reader import load_settings
from dispatcher.core.errors import OutcomeUnknownError, OverloadedError, StoreUnavailableError
from dispatcher.runtime.tasks import TaskSet
from dispatcher.store.outbox_inserts import InsertedRow, NewRow
from dispatcher.store.pool import Database
from tests.admin.conftest import environment
from tests.admin.serving import Api, served
from tests.support.daemon import until
from tests.support.fault_proxy import FaultProxy, Link
from tests.support.pace import in_time
from tests.support.servers import socket_of

pytestmark = pytest.mark.postgres

LINES = {"Content-Type": "application/x-ndjson"}
LOCK = "BEGIN; LOCK TABLE dispatcher.outbox IN SHARE MODE"
"""Every insert waits, so the events that arrive meanwhile form groups."""
IDS = "SELECT id FROM dispatcher.outbox ORDER BY position"


def event(number: int = 0, **fields: object) -> dict[str, object]:
    return {"type": "order.created", "data": {"number": number}, **fields}


def row(event_id: str | None = None, data: str = "{}") -> NewRow:
    return NewRow("a.b", data, event_id, "default", None, None, None, None, None)


@pytest.fixture
async def database_pool(database: str) -> AsyncIterator[Database]:
    pool = Database(database, connections_max=4)
    await pool.open()
    yield pool
    await pool.close()


@contextlib.asynccontextmanager
async def running(pool: Database, **options: Any) -> AsyncIterator[Publisher]:
    publisher = Publisher(pool, **options)
    async with TaskSet("publishing") as tasks:
        tasks.spawn("run", publisher.run())
        tasks.spawn("rejected", publisher.run_rejected())
        await asyncio.sleep(0)
        yield publisher


def start(publisher: Publisher, rows: list[NewRow]) -> list[asyncio.Task[InsertedRow | None]]:
    loop = asyncio.get_running_loop()
    return [loop.create_task(publisher.publish(one, 10.0)) for one in rows]


async def results_of(
    tasks: list[asyncio.Task[InsertedRow | None]],
) -> list[InsertedRow | BaseException | None]:
    await asyncio.wait(tasks)
    return [task.exception() or task.result() for task in tasks]


async def waiting_count(publisher: Publisher, wanted: int) -> None:
    async def is_reached() -> bool:
        return publisher._events_count == wanted

    await until(is_reached, seconds=10, what=f"{wanted} events wait")


# --- batches ---


async def test_a_batch_reports_the_one_invalid_event_of_a_thousand(api: Api, connection) -> None:
    events = [event(number) for number in range(1_000)]
    events[500]["type"] = "Order Created"
    raw = b"\n".join(orjson.dumps(one) for one in events)
    refused = await api.ask("POST", "/events?all_or_nothing=true", raw=raw, headers=LINES)
    assert (refused.status, refused.faults) == (422, ["events[500].type"])
    assert await connection.fetch(IDS) == []
    reply = await api.ask("POST", "/events", raw=raw, headers=LINES)
    assert reply.status == 200
    counts = {name: reply.json[name] for name in ("created", "known", "rejected")}
    assert counts == {"created": 999, "known": 0, "rejected": 1}
    results = reply.json["results"]
    assert [one["index"] for one in results] == list(range(1_000))
    assert [one["code"] for one in results[500]["errors"]] == ["invalid_event_type"]
    created = [one["id"] for one in results if one["status"] == "created"]
    assert created == [one[0] for one in await connection.fetch(IDS)]
    assert (
        await connection.fetchval("SELECT count(DISTINCT xmin::text) FROM dispatcher.outbox")
    ) == 1


async def test_a_list_and_lines_keep_the_bytes_of_data(api: Api, connection) -> None:
    data = '{"total": 12.0, "note": "}, {\\"", "b": [{}, {}], "a": 1e400, "ไทย": "\\ud83d"}'
    one = '{"type": "a.b", "data": ' + data + "}"
    for raw, headers in ((f"[{one} ,\n {one}]", {}), (f"{one}\n\n{one}\n", LINES)):
        reply = await api.ask("POST", "/events", raw=raw.encode(), headers=headers)
        assert reply.json["created"] == 2, reply.json
    stored = await connection.fetch("SELECT data::text FROM dispatcher.outbox")
    assert [found[0] for found in stored] == [data] * 4


@pytest.mark.parametrize(
    "content_type",
    ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/json"],
)
@pytest.mark.parametrize("count", [1, 2, 900])
async def test_body_with_a_byte_order_mark_is_read(
    api: Api, connection, content_type: str, count: int
) -> None:
    lines = [orjson.dumps(event(number)) for number in range(count)]
    raw = b"\r\n".join(lines)
    if content_type == "application/json":
        raw = b"[" + b",".join(lines) + b"]" if count > 1 else lines[0]
    headers = {"Content-Type": content_type}
    reply = await api.ask("POST", "/events", raw=b"\xef\xbb\xbf" + raw, headers=headers)
    assert reply.status in (200, 201), reply.json
    assert len(await connection.fetch(IDS)) == count


async def test_a_batch_publishes_an_id_once_and_never_another_tenants(api: Api, connection) -> None:
    await api.ask("POST", "/events", event(id="theirs", tenant="other"))
    events = [event(id="a"), event(id="b"), event(1, id="a"), event(id="theirs"), event()]
    refused = await api.ask("POST", "/events?all_or_nothing=true", events)
    assert (refused.status, refused.faults) == (422, ["events[3].id"])
    assert [one[0] for one in await connection.fetch(IDS)] == ["theirs"]
    reply = await api.ask("POST", "/events", events)
    assert [one["status"] for one in reply.json["results"]] == [
        *("created", "created", "known", "rejected", "created")
    ]
    assert reply.json["results"][3]["errors"][0]["code"] == "event_id_in_use"
    again = await api.ask("POST", "/events?all_or_nothing=true", events[:3])
    assert again.json["known"] == 3
    assert (await api.ask("GET", "/events/a")).json["data"] == {"number": 0}


@pytest.mark.parametrize(
    ("raw", "headers"),
    [
        (b'{"type": "a.b", "data": {}}\n{"type": "a.b", "da', LINES),
        (b'[{"type": "a.b", "data": {}}, {"type": "a.b", "da', {}),
        (b'[{"type": "a.b", "data": {}}, {"type": "a.b", "data": {}}', {}),
        (b'[{"type": "a.b", "data": {}}, 5]', {}),
        (b'[{"type": "a.b", "data": {}} {"type": "a.b", "data": {}}]', {}),
        (b'[{"type": "a.b", "data": {}},]', {}),
    ],
)
async def test_a_batch_that_is_not_json_publishes_nothing(
    api: Api, connection, raw, headers
) -> None:
    reply = await api.ask("POST", "/events", raw=raw, headers=headers)
    assert (reply.status, reply.json["code"]) == (400, "malformed_request")
    assert "Nothing was published" in reply.json["detail"]
    assert await connection.fetch(IDS) == []


async def test_a_batch_that_is_cut_off_publishes_nothing(api: Api, connection) -> None:
    line = orjson.dumps(event()) + b"\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    head = f"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.token}\r\n"
    head += f"Content-Type: application/x-ndjson\r\nContent-Length: {10 * len(line)}\r\n\r\n"
    writer.write(head.encode() + 5 * line)
    await writer.drain()
    writer.write_eof()
    async with asyncio.timeout(10):
        await reader.read()
    writer.close()
    await api.ask("POST", "/events", event(id="after"))
    assert [one[0] for one in await connection.fetch(IDS)] == ["after"]


async def test_batches_have_bounds(api: Api) -> None:
    many = await api.ask(
        "POST", "/events", raw=b'{"type":"a.b","data":{}}\n' * 1_001, headers=LINES
    )
    large = b'{"type":"a.b","data":{"x":"' + b"x" * 2**21 + b'"}}'
    single = await api.ask("POST", "/events", raw=large)
    within = await api.ask("POST", "/events", raw=b"[" + large + b"]")
    body = await api.ask("POST", "/events", raw=b" " * (16 * 2**20 + 1), headers=LINES)
    assert [one.status for one in (many, single, within, body)] == [413] * 4
    for raw in (b"[]", b" [ \n ]"):
        assert (await api.ask("POST", "/events", raw=raw)).json["results"] == []
    two = [event(0, data={"x": "x" * 700_000}), event(1, data={"x": "x" * 700_000})]
    assert (await api.ask("POST", "/events", two)).json["created"] == 2, "two statements"


async def test_events_of_a_batch_count_for_the_tokens_rate(api: Api) -> None:
    token = await api.token_of("operator")
    reply = await api.ask("POST", "/events", event(), token=token)
    for _ in range(20):
        if reply.status == 429:
            break
        reply = await api.ask("POST", "/events", raw=b"{}\n" * 1_000, token=token, headers=LINES)
    assert (reply.status, reply.json["code"]) == (429, "too_many_events_of_token")
    assert int(reply.headers["Retry-After"]) >= 1
    assert (await api.ask("POST", "/events", event())).status == 201, "another token"


# --- groups ---


async def test_events_that_wait_together_share_a_commit(database_pool, connection) -> None:
    async with running(database_pool) as publisher:
        await connection.execute(LOCK)
        tasks = start(publisher, [row() for _ in range(50)])
        await waiting_count(publisher, 50)
        await connection.execute("COMMIT")
        ids = [one.id for one in await results_of(tasks) if isinstance(one, InsertedRow)]
    assert ids == [one[0] for one in await connection.fetch(IDS)], "in the order of their arrival"
    assert len(ids) == 50
    commits = await connection.fetchval("SELECT count(DISTINCT xmin::text) FROM dispatcher.outbox")
    assert commits <= 2


async def test_commits_are_reported_with_the_number_of_new_events(database_pool) -> None:
    reported: list[int] = []
    async with running(
        database_pool, committed=lambda count, _: reported.append(count)
    ) as publisher:
        await publisher.publish(row("metric-1"), 10.0)
        await publisher.publish(row("metric-1"), 10.0)  # its id is known
        await publisher.publish_batch([row("metric-1"), row("metric-2")], 10.0)
    assert reported == [1, 0, 1]


async def test_an_event_that_postgres_rejects_fails_alone(database_pool, connection) -> None:
    rows = [row(), row(data='{"x": "\\u00"}'), row("own"), row("own"), row(data="[]")]
    async with running(database_pool) as publisher:
        results = await results_of(start(publisher, rows))
    kinds = [type(one).__name__ for one in results]
    assert kinds == ["InsertedRow", "DataFaultError", "InsertedRow", "NoneType", "DataFaultError"]
    assert await connection.fetchval("SELECT count(*) FROM dispatcher.outbox") == 2


async def test_an_id_in_an_open_transaction_delays_no_other_event(
    database_pool, connection
) -> None:
    await connection.execute(
        "BEGIN; INSERT INTO dispatcher.outbox (id, type, data) VALUES ('open', 'a.b', '{}')"
    )
    loop = asyncio.get_running_loop()
    async with running(database_pool) as publisher:
        began_at = loop.time()
        rows = [row("open"), *(row(f"n{number}") for number in range(20)), row()]
        results = await results_of(start(publisher, rows))
        seconds = loop.time() - began_at
        batch = await publisher.publish_batch([row(), row("open"), row()], 10.0)
    await connection.execute("ROLLBACK")
    assert isinstance(results[0], StoreUnavailableError)
    assert all(isinstance(one, InsertedRow) for one in results[1:])
    assert in_time(seconds, 1.0)
    assert [found is not None for found in batch.ids] == [True, False, True]
    assert list(batch.errors) == [1]


async def test_a_client_that_disconnects_while_waiting_publishes_nothing(
    api: Api, connection
) -> None:
    await connection.execute(LOCK)
    head = f"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.token}\r\n"
    body = orjson.dumps(event(1))
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    writer.write(head.encode() + body)
    await writer.drain()
    publisher = api.operations.events._publisher
    await waiting_count(publisher, 1)
    writer.close()
    await writer.wait_closed()
    await waiting_count(publisher, 0)
    other = asyncio.ensure_future(api.ask("POST", "/events", event(2)))
    await waiting_count(publisher, 1)
    await connection.execute("COMMIT")
    assert (await other).status == 201
    stored = await connection.fetch("SELECT data::text FROM dispatcher.outbox")
    assert [found[0] for found in stored] == ['{"number":2}']


async def test_a_publish_fails_at_once_if_too_many_wait(database_pool, connection) -> None:
    async with running(database_pool, waiting_events_max=2) as publisher:
        await connection.execute(LOCK)
        waiting = start(publisher, [row(), row()])
        await waiting_count(publisher, 2)
        with pytest.raises(OverloadedError):
            await publisher.publish(row(), 10.0)
        await connection.execute("COMMIT")
        assert all(isinstance(one, InsertedRow) for one in await results_of(waiting))
        assert isinstance(await publisher.publish(row(), 10.0), InsertedRow), "room again"


# --- tokens ---


async def test_a_revoked_token_publishes_nothing(api: Api, connection) -> None:
    token = await api.token_of("operator")
    assert (await api.ask("POST", "/events", event(id="before"), token=token)).status == 201
    page = await connection.fetchval("SELECT id FROM dispatcher.token")
    await connection.execute("UPDATE dispatcher.token SET revoked_at = now() WHERE id = $1", page)
    for body in (event(), event(id="before"), [event(), event(id="before")]):
        assert (await api.ask("POST", "/events", body, token=token)).status == 401
    assert [one[0] for one in await connection.fetch(IDS)] == ["before"]


# --- an outage ---


@pytest.fixture
async def proxy(database: str) -> AsyncIterator[FaultProxy]:
    folder, _ = socket_of(database)
    async with FaultProxy(path=f"{folder}/.s.PGSQL.5432") as made:
        yield made


@pytest.fixture
async def distant(database: str, proxy: FaultProxy) -> AsyncIterator[Api]:
    """The API of a deployment behind the proxy."""
    url = f"postgresql://dispatcher@127.0.0.1:{proxy.port}/{socket_of(database)[1]}"
    pool = Database(url, connections_max=4)
    await pool.open()
    async with served(deployment_of(load_settings(None, environment(url)), pool)) as found:
        yield found
    await pool.close()


def take_away(proxy: FaultProxy) -> None:
    proxy.cut_after = lambda _, __: True
    for link in proxy.links:
        link.cut()


async def test_publishes_wait_for_a_database_that_recovers(
    distant: Api, proxy: FaultProxy, connection
) -> None:
    token = await distant.token_of("operator")
    unknown_yet = await distant.token_of("operator", "acme")
    await distant.ask("POST", "/events", event(id="before"), token=token)
    take_away(proxy)
    # An event on a connection whose end was not noticed yet would have an unknown outcome.
    assert (await distant.ask("GET", "/endpoints")).status == 503
    impatient = await distant.ask(
        "POST", "/events", event(), token=token, headers={"Prefer": "respond-async, wait=1"}
    )
    assert (impatient.status, impatient.json["code"]) == (503, "database_unavailable")
    assert int(impatient.headers["Retry-After"]) >= 1
    patient = {"Prefer": "wait=30"}
    waiting = [
        asyncio.ensure_future(distant.ask("POST", "/events", body, token=who, headers=patient))
        for who, body in ((token, event(id="a")), (token, [event(id="b")]), (unknown_yet, event()))
    ]
    done, _ = await asyncio.wait(waiting, timeout=0.3)
    assert not done
    proxy.cut_after = lambda _, __: False
    await asyncio.wait(waiting)
    statuses = [one.result().status for one in waiting]
    assert statuses == [201, 200, 201]
    stored = await connection.fetch(IDS)
    assert {"before", "a", "b"} < {one[0] for one in stored}
    assert len(stored) == 4


async def test_a_client_that_does_not_want_to_wait_gets_the_event(distant: Api) -> None:
    for preference in ("wait=0", 'respond-async, wait="0"'):
        response = await distant.ask("POST", "/events", event(), headers={"Prefer": preference})
        assert response.status == 201


async def test_a_lost_commit_is_repeated_only_with_an_id_of_ones_own(
    distant: Api, proxy: FaultProxy, connection
) -> None:
    await distant.ask("POST", "/events", event(id="before"))  # the statement is prepared
    cuts = {b"with-id": 1, b"without": 1}

    def cut(_: Link, piece: bytes) -> bool:
        for name, left in cuts.items():
            if name in piece and left:
                cuts[name] = 0
                return True
        return False

    proxy.cut_after = cut
    own = await distant.ask("POST", "/events", event(id="with-id"))
    other = await distant.ask("POST", "/events", event(data={"x": "without"}))
    assert cuts == {b"with-id": 0, b"without": 0}
    assert (own.status, own.json["id"]) == (200, "with-id")
    assert (other.status, other.json["code"]) == (503, "outcome_unknown")

    async def are_committed() -> bool:
        count: int = await connection.fetchval("SELECT count(*) FROM dispatcher.outbox")
        return count == 3

    # The server may still be at the statement whose connection was cut.
    await until(are_committed, seconds=10, what="one commit of each")


async def test_an_outcome_is_unknown_if_the_time_is_over_during_a_commit(
    distant: Api, proxy: FaultProxy
) -> None:
    await distant.ask("POST", "/events", event())
    for link in proxy.links:
        link.stall()
    publisher = distant.operations.events._publisher
    with pytest.raises(OutcomeUnknownError):
        await publisher.publish(row(), 0.3)


async def test_an_event_that_is_not_sent_in_time_is_never_committed(
    database_pool, connection
) -> None:
    async with running(database_pool) as publisher:
        async with contextlib.AsyncExitStack() as held:
            for _ in range(4):
                await held.enter_async_context(database_pool.connection())
            with pytest.raises(StoreUnavailableError) as caught:
                await publisher.publish(row("late"), 0.2)
        assert not isinstance(caught.value, OutcomeUnknownError)
        assert await publisher.publish(row("next"), 10.0)
    assert [one[0] for one in await connection.fetch(IDS)] == ["next"]


# --- the response ---


async def replies(
    api: Api, raw: bytes, count: int = 1, *, closes: bool = False
) -> list[tuple[list[bytes], bytes]]:
    """Sends bytes; returns so many responses, each its head's lines and its body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    writer.write(raw)
    found = []
    for _ in range(count):
        head = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[:-2]
        length = next(int(line[16:]) for line in head if line.startswith(b"Content-Length: "))
        found.append((head, await reader.readexactly(length)))
    if closes:
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    return found


def request_of(api: Api, body: bytes, *lines: str, version: str = "1.1") -> bytes:
    head = [
        f"POST /api/v1/events HTTP/{version}",
        "Host: dispatcher",
        f"Authorization: Bearer {api.token}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *lines,
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


async def test_a_direct_response_has_the_head_that_aiohttp_writes(
    api: Api,
) -> None:
    body = orjson.dumps(event(id="same"))
    await api.ask("POST", "/events", raw=body)  # both of the others get 200 for it
    [(direct, first)] = await replies(api, request_of(api, body))
    [(usual, second)] = await replies(api, request_of(api, body, "Connection: close"), closes=True)
    without_date = [[line for line in head if b"Date: " not in line] for head in (direct, usual)]
    assert sorted([*without_date[0], b"Connection: close"]) == sorted(without_date[1])
    assert first == second
    assert sum(line.startswith(b"Date: ") and line.endswith(b" GMT") for line in direct) == 1


async def test_pipelined_publishes_get_responses_in_order(
    api: Api,
) -> None:
    raw = b"".join(request_of(api, orjson.dumps(event(id=f"p-{n}"))) for n in range(20))
    wrong = request_of(api, b"{}")
    old = request_of(api, orjson.dumps(event(id="old")), "Connection: keep-alive", version="1.0")
    found = await replies(api, raw + wrong + old, 22)
    assert [orjson.loads(body).get("id") for _, body in found] == [
        *(f"p-{n}" for n in range(20)), None, "old",
    ]  # fmt: skip
    assert found[20][0][0].startswith(b"HTTP/1.1 422 ")
    assert b"X-Content-Type-Options: nosniff" in found[20][0]
    assert found[21][0][0] == b"HTTP/1.0 201 Created"


async def test_a_batch_keeps_empty_texts_and_texts_that_few_events_have(
    api: Api, connection
) -> None:
    events = [event(ordering_key=""), event(), event(labels={"a": "b"}), event(traceparent="t")]
    reply = await api.ask("POST", "/events", events)
    assert reply.json["created"] == 4
    rows = await connection.fetch(
        "SELECT ordering_key, labels::text, traceparent FROM dispatcher.outbox ORDER BY position"
    )
    assert [tuple(one) for one in rows] == [
        ("", "{}", None), (None, "{}", None), (None, '{"a": "b"}', None), (None, "{}", "t"),
    ]  # fmt: skip
