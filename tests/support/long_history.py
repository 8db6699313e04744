"""A long history for pages to be slow on: deliveries, attempts and events over 30 days, by COPY.

What is in it is chosen for its extremes: one endpoint has a third of everything and one has a
handful, one tenant has two hundred deliveries in all, one event type is rare and one was used only
weeks ago, few deliveries failed and fewer were cancelled, a third of the events have labels. The
same numbers make the same history, but for the days, which end today.
"""

import hashlib
import random
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dispatcher.core import codes, ids
from dispatcher.store.delivery_ids import uuid_of

if TYPE_CHECKING:
    import asyncpg

DAYS: Final = 30
FAN_OUT: Final = 2
ENDPOINTS: Final = 200
TENANTS: Final = 40
COMMON_TYPES: Final = tuple(f"stock.kind_{n}" for n in range(20))
RARE_TYPE, OLD_TYPE, USUAL_TYPE = "audit.alert", "wave.released", "order.created"
WAREHOUSES: Final = ("BKK", "CNX", "HKT")
BODY: Final = b'{"order_id":"ORD-2026-1234","customer":"CUST-001","note":"%b"}' % (b"x" * 120)
NUMBERS_FROM: Final = 1_000_000
"""Numbers of the endpoints, above those that other tests of the database create."""


class Seeded(NamedTuple):
    """What the history is made of, for whoever asks it."""

    deliveries_count: int
    big_endpoint: str
    small_endpoint: str
    tiny_tenant: str
    tiny_endpoint: str
    old_delivery: str
    old_event: str
    request_id: str
    rare_label: tuple[str, str]
    endpoints: list[str]


def endpoint_id(number: int) -> str:
    """Returns the id of the endpoint of this number, the same in every run."""
    at = 1_700_000_000_000 + number
    return ids.new_id(ids.ENDPOINT_PREFIX, at, number.to_bytes(ids.RANDOMNESS_BYTES, "big"))


def _tenant(endpoint: int) -> str:
    """Returns whose an endpoint is: the first half `default`, then some large and many small tenants."""
    if endpoint < ENDPOINTS // 2:
        return "default"
    if endpoint == ENDPOINTS - 1:
        return "tiny"
    return f"tenant{endpoint % TENANTS}"


async def make_endpoints(connection: "asyncpg.Connection[Any]") -> None:
    """Makes the endpoints."""
    await connection.executemany(
        "INSERT INTO dispatcher.endpoint (id, tenant, name, url, profile, event_types, shard, number)"
        " OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3, 'https://receiver.example/', $4, '{*}', $5, $6)",
        [
            (endpoint_id(n), _tenant(n), f"endpoint {n}", _profile(n), n % 64, NUMBERS_FROM + n)
            for n in range(ENDPOINTS)
        ],
    )


def _profile(endpoint: int) -> str:
    return "humansoft" if endpoint % 10 == 1 else "standard"


async def make_days(connection: "asyncpg.Connection[Any]", first: date, last: date) -> None:
    """Makes the partitions of these days."""
    day = first
    while day <= last:
        for parent in ("event", "body", "delivery_done", "attempt"):
            part = f"{parent}_{day:%Y%m%d}"
            if await connection.fetchval("SELECT to_regclass('dispatcher.' || $1)", part) is None:
                await connection.execute(
                    f"CREATE TABLE dispatcher.{part} (LIKE dispatcher.{parent} INCLUDING ALL);"
                    f" ALTER TABLE dispatcher.{parent} ATTACH PARTITION dispatcher.{part}"
                    f" FOR VALUES FROM ('{day}') TO ('{day + timedelta(days=1)}')"
                )
        day += timedelta(days=1)


async def seed(
    connection: "asyncpg.Connection[Any]", deliveries: int, *, days: int = DAYS, number: int = 1
) -> Seeded:
    """Makes the history; `deliveries` in all, spread evenly over the days up to now."""
    chance = random.Random(number)  # noqa: S311 -- a history, not a secret
    now = await connection.fetchval("SELECT now()")
    first = (now - timedelta(days=days - 1)).date()
    await make_days(connection, first, now.date())
    await make_endpoints(connection)
    seeded = None
    for index in range(days):
        start = datetime(first.year, first.month, first.day, tzinfo=UTC) + timedelta(days=index)
        end = min(now, start + timedelta(days=1))
        rows = _Day(chance, start, end, deliveries // days, index, days)
        for table in ("event", "body", "delivery_done", "attempt"):
            records = getattr(rows, table)
            await connection.copy_records_to_table(
                table, schema_name="dispatcher", columns=_COLUMNS[table], records=records
            )
        if seeded is None:
            seeded = Seeded(
                deliveries // days * days,
                endpoint_id(0),
                endpoint_id(ENDPOINTS - 2),
                "tiny",
                endpoint_id(ENDPOINTS - 1),
                rows.first_delivery,
                str(rows.event[0][6]),
                f"req_{hashlib.sha256(rows.requested.encode()).hexdigest()[:16]}",
                ("order", "ORD-0-6"),
                [endpoint_id(n) for n in range(ENDPOINTS)],
            )
    await connection.execute("ANALYZE")
    assert seeded is not None
    return seeded


async def seed_backlog(connection: "asyncpg.Connection[Any]", deliveries: int) -> None:
    """Adds deliveries that wait, of the last hour, a third of them for the first endpoint."""
    now = await connection.fetchval("SELECT now()")
    chance = random.Random(2)  # noqa: S311 -- a history, not a secret
    rows: list[tuple[object, ...]] = []
    events: list[tuple[object, ...]] = []
    for number in range(deliveries):
        at = now - timedelta(seconds=3600 * (1 - number / deliveries))
        endpoint, event_id = _endpoint(chance, number), f"waiting-{number}"
        kind, tenant = _type(chance, 9, 30, number), _tenant(endpoint)
        labels = "{}" if number % 3 else f'{{"warehouse": "{WAREHOUSES[number % 7 % 3]}"}}'
        unix_ms = ids.delivery_unix_ms(at, now.date())
        delivery_id = ids.delivery_id(unix_ms, event_id, endpoint_id(endpoint))
        events.append(
            (at, at, at, now.date(), None, None, event_id, kind, tenant, None, labels, "{}", None)
        )
        rows.append(
            (
                uuid_of(delivery_id),
                now.date(),
                event_id,
                NUMBERS_FROM + endpoint,
                codes.event_type_code(kind),
                at,
            )
        )
    for table, records in (("event", events), ("delivery_open", rows)):
        await connection.copy_records_to_table(
            table, schema_name="dispatcher", records=records, columns=_COLUMNS[table]
        )
    await connection.execute("ANALYZE")


_COLUMNS: Final = {
    "event": (
        *("inserted_at", "accepted_at", "occurred_at", "day", "data_offset", "data_length", "id"),
        *("type", "tenant", "profile", "labels", "data", "bytes"),
    ),
    "body": ("day", "event_id", "profile", "bytes"),
    "delivery_open": (
        *("id", "day", "event_id", "endpoint_no", "event_type_code", "next_attempt_at"),
    ),
    "delivery_done": (
        *("id", "day", "event_id", "endpoint_no", "event_type_code", "state", "reason"),
        *("attempt_count", "schedule_position", "finished_at", "attempted_at", "revision"),
        *("latency_seconds", "trigger", "outcome", "response_code", "reused", "peer"),
    ),
    "attempt": (
        *("day", "event_id", "endpoint_no", "delivery_id", "attempt_number", "trigger", "outcome"),
        *("attempted_at", "latency_seconds", "reused", "peer", "revision", "response_code"),
        *("response_body",),
    ),
}


class _Day:
    """One day's rows, in the order of time."""

    def __init__(
        self,
        chance: random.Random,
        start: datetime,
        end: datetime,
        count: int,
        index: int,
        days: int,
    ) -> None:
        self.event: list[tuple[object, ...]] = []
        self.body: list[tuple[object, ...]] = []
        self.delivery_done: list[tuple[Any, ...]] = []
        self.attempt: list[tuple[object, ...]] = []
        self.first_delivery = ""
        self.requested = ""
        """An event with a request id, the last of the day."""
        day, step = start.date(), (end - start) / max(1, count)
        for place in range(0, count, FAN_OUT):
            at = start + step * place
            first = _endpoint(chance, index * count + place)
            tenant = _tenant(first)
            event_id = f"evt_{start.year}_{index * count + place:07d}"
            event_type = _type(chance, index, days, place)
            labels = (
                "{}"
                if place % 3
                else f'{{"order": "ORD-{index}-{place}", "warehouse": "{WAREHOUSES[place % 7 % 3]}"}}'
            )
            endpoints = dict.fromkeys([first, *_others(chance, first)])
            profiles = sorted({_profile(endpoint) for endpoint in endpoints})
            self.event.append(
                (
                    at,
                    at,
                    at,
                    day,
                    0,
                    len(BODY),
                    event_id,
                    event_type,
                    tenant,
                    profiles[0],
                    labels,
                    None,
                    BODY,
                )
            )  # fmt: skip -- as the columns
            if "humansoft" in profiles:
                self.requested = event_id
            self.body.extend((day, event_id, profile, BODY) for profile in profiles[1:])
            for offset, endpoint in enumerate(endpoints):
                if place + offset >= count:
                    break
                delivery_id = ids.delivery_id(
                    ids.delivery_unix_ms(at, day), event_id, endpoint_id(endpoint)
                )
                state, reason, attempts = _end(chance)
                number, uuid = NUMBERS_FROM + endpoint, uuid_of(delivery_id)
                code = codes.event_type_code(event_type)
                is_first = attempts == 1
                self.delivery_done.append(
                    (
                        *(uuid, day, event_id, number, code, codes.STATE_CODES[state]),
                        *(codes.reason_code(reason), attempts, attempts, at),
                        *(
                            (
                                at + timedelta(seconds=1),
                                1,
                                0.05,
                                1,
                                codes.OK,
                                200,
                                True,
                                "192.0.2.1",
                            )
                            if is_first
                            else (None,) * 8
                        ),
                    )
                )
                self.first_delivery = self.first_delivery or str(delivery_id)
                self.attempt.extend(
                    (
                        *(day, event_id, number, uuid, attempt, 1),
                        *(codes.OUTCOME_CODES["http_error"], at + timedelta(seconds=attempt)),
                        *(0.05, True, "192.0.2.1", 1, 503, b"unavailable"),
                    )
                    for attempt in range(1, attempts + 1)
                    if not is_first
                )


def _endpoint(chance: random.Random, place: int) -> int:
    """Returns an endpoint: a third of all go to the first, one in 5,000 to the tiny tenant's."""
    if place % 5_000 == 0:
        return ENDPOINTS - 1
    if chance.random() < 0.34:
        return 0
    return chance.randrange(1, ENDPOINTS - 2) if place % 20_000 != 2 else ENDPOINTS - 2


def _others(chance: random.Random, first: int) -> list[int]:
    """Returns a second endpoint of the same tenant, where there is one."""
    tenant = _tenant(first)
    if tenant == "default":
        return [chance.randrange(1, ENDPOINTS // 2)]
    other = first + TENANTS if first + TENANTS < ENDPOINTS - 2 else first - TENANTS
    return [other] if other >= ENDPOINTS // 2 and _tenant(other) == tenant else []


def _type(chance: random.Random, index: int, days: int, place: int) -> str:
    if place % 10_000 == 0:
        return RARE_TYPE
    if index < days // 10 and chance.random() < 0.2:
        return OLD_TYPE
    return USUAL_TYPE if chance.random() < 0.5 else chance.choice(COMMON_TYPES)


def _end(chance: random.Random) -> tuple[str, str | None, int]:
    value = chance.random()
    if value < 0.001:
        return "cancelled", "cancelled_by_person", 0
    if value < 0.02:
        return "failed", "schedule_spent", 3
    return "succeeded", None, 1
