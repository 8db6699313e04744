"""20,000 endpoints: start, memory, idle CPU, and how soon one change is seen; what forgetting lanes costs.

`python -m benchmarks endpoints [--short] [--endpoints N] [--rounds N] [--json PATH]`. All endpoints have one
secret and the profile `standard`. Each round starts a daemon without endpoints and one with all of them.
Measured: seconds from the start of the process to ready, and to the first request of an event that
was committed before; memory; CPU while nothing happens. Then one endpoint after another is
changed, so that it subscribes to a new event type, and an event of that type is committed right
after: milliseconds from the commit of the change to the request, and without a change. The other
contender is a change of every endpoint (`everything_changed_ms`), which has all of them reloaded, as
each change did before. The longest steps of the event loop, while it loads everything and while it
forgets lanes with retries, are measured in this process, in CPU time of the thread.
"""

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import asyncpg
import uvloop

from benchmarks.harness import (
    KEY,
    SECRET,
    Dispatcher,
    Goal,
    arguments,
    cpu_seconds,
    postgres,
    receiver,
    write_results,
)
from dispatcher.config.profiles import load_profiles
from dispatcher.config.shipped import shipped_config_directory
from dispatcher.core.addresses import DEFAULT_PORTS
from dispatcher.core.matching import parse_event_types
from dispatcher.core.model import DeliveryId, EndpointId, EndpointState
from dispatcher.core.outcome import RetryPolicy
from dispatcher.core.sealing import Keyring
from dispatcher.core.url import CanonicalUrl
from dispatcher.delivery.crowding import Crowding
from dispatcher.delivery.deferrals import Deferrals
from dispatcher.delivery.endpoint import Endpoint
from dispatcher.delivery.inventory import Inventory
from dispatcher.delivery.lane_follower import LaneFollower
from dispatcher.delivery.load_queue import LoadQueue
from dispatcher.delivery.permits import Permits
from dispatcher.delivery.retry_timer import RetryTimer
from dispatcher.delivery.routing import RoutingTable
from dispatcher.delivery.types import DUE
from dispatcher.outbound.pool import Target
from dispatcher.runtime.clock import SystemClock
from dispatcher.runtime.collector import exclude_the_start
from dispatcher.store.pool import Database
from dispatcher.store.routing import Endpoints

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

IDLE_SECONDS = 20
CHANGES = 20
LANES, RETRIES_PER_LANE = 2_000, 40


async def fill(
    url: str,
    target: str,
    count: int,
    *,
    types: Sequence[str] = ("order.created", "stock.*"),
    tenant: str = "",
) -> None:
    """Insert endpoints as fast as COPY does, by default for types that are not sent.

    They belong to the tenant `default`, or each to a tenant of its own: `tenant` followed by `-0` and on.
    """
    keyring = Keyring({"k1": KEY})
    ids = [f"ep_many{number:06d}" for number in range(count)]
    connection = await asyncpg.connect(url)
    await connection.copy_records_to_table(
        "endpoint", schema_name="dispatcher",
        columns=["id", "tenant", "name", "url", "profile", "event_types", "shard"],
        records=[
            (one, f"{tenant}-{n}" if tenant else "default", one, f"{target}/{one}", "standard", list(types), n % 64)
            for n, one in enumerate(ids)
        ],
    )  # fmt: skip
    await connection.copy_records_to_table(
        "endpoint_secret", schema_name="dispatcher", columns=["endpoint_id", "role", "key_id", "sealed"],
        records=[
            (one, "current", "k1", keyring.seal(SECRET, owner=one, nonce=os.urandom(12))) for one in ids
        ],
    )  # fmt: skip
    await connection.execute("ANALYZE")
    await connection.close()


async def _subscribe(connection: "Connection", endpoint_id: str, event_type: str) -> None:
    await connection.execute(
        "UPDATE dispatcher.endpoint SET event_types = ARRAY[$2] WHERE id = $1", endpoint_id, event_type
    )  # fmt: skip


async def publish_event(connection: "Connection", event_type: str, tenant: str = "default") -> str:
    """Commit one event and return its id."""
    return str(
        await connection.fetchval(
            "INSERT INTO dispatcher.outbox (type, tenant, data) VALUES ($1, $2, '{}') RETURNING id",
            event_type, tenant,
        )
    )  # fmt: skip


async def attempted_at(connection: "Connection", event_id: str) -> float:
    """Wait for an event's attempt and return when it began, in seconds since 1970."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        at = await connection.fetchval(
            "SELECT extract(epoch FROM min(attempted_at))::float8 FROM dispatcher.attempt_row WHERE event_id = $1",
            event_id,
        )  # fmt: skip
        if at is not None:
            return float(at)
        await asyncio.sleep(0.01)
    raise TimeoutError(f"{event_id} was not sent")


async def _change(url: str, count: int, *, changes: bool, everything: bool = False) -> list[float]:
    """Return the milliseconds from the commit of each change, or of each event alone, to the request."""
    connection = await asyncpg.connect(url)
    milliseconds = []
    for number in range(CHANGES):
        endpoint_id, event_type = f"ep_many{number * (count // CHANGES):06d}", f"changed.n{number}"
        await asyncio.sleep(0.3)  # past the time for which intake lingers
        if everything:
            await connection.execute("UPDATE dispatcher.endpoint SET updated_at = now()")
        if changes:
            await _subscribe(connection, endpoint_id, event_type)
        committed_at = time.time()
        event_id = await publish_event(connection, event_type)
        milliseconds.append((await attempted_at(connection, event_id) - committed_at) * 1000)
        if everything and number == 2:
            break
    await connection.close()
    return milliseconds


def _memory_kb(process_id: int) -> int:
    for line in Path(f"/proc/{process_id}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def settled_kb(process_id: int) -> int:
    """Return the memory in KB once it has stopped growing."""
    before, now = 0, _memory_kb(process_id)
    while now - before > 200:
        time.sleep(2)
        before, now = now, _memory_kb(process_id)
    return now


def _idle_percent(process_id: int) -> float:
    before, began = cpu_seconds(process_id), time.monotonic()
    time.sleep(IDLE_SECONDS)
    return 100 * (cpu_seconds(process_id) - before) / (time.monotonic() - began)


def _round(url: str, directory: Path, count: int, *, first_type: str | None) -> dict[str, float]:
    """Start a daemon and return its figures; with endpoints, the seconds to the first request, too."""
    figures: dict[str, float] = {}
    daemon = Dispatcher(url, directory)
    event_id = ""

    async def publish() -> str:
        connection = await asyncpg.connect(url)
        await _subscribe(connection, "ep_many000001", str(first_type))
        made = await publish_event(connection, str(first_type))
        await connection.close()
        return made

    async def first() -> float:
        connection = await asyncpg.connect(url)
        at = await attempted_at(connection, event_id)
        await connection.close()
        return at

    if first_type is not None:
        event_id = asyncio.run(publish())
    started_at = time.time()
    process_id = daemon.start()
    figures["ready_seconds"] = time.time() - started_at
    if first_type is not None:
        figures["first_request_seconds"] = asyncio.run(first()) - started_at
        figures["first_request_cpu_seconds"] = cpu_seconds(process_id)
    figures["memory_kb"] = settled_kb(process_id)
    figures["idle_percent"] = _idle_percent(process_id)
    if first_type is not None:
        plain = asyncio.run(_change(url, count, changes=True))
        figures["changed_ms"] = statistics.median(plain)
        figures["changed_ms_max"] = max(plain)
        figures["unchanged_ms"] = statistics.median(asyncio.run(_change(url, count, changes=False)))
        figures["everything_changed_ms"] = statistics.median(
            asyncio.run(_change(url, count, changes=True, everything=True))
        )
    daemon.stop()
    return figures


# --- in this process: the longest steps of the event loop, in CPU time ---


async def _longest_step(done: Callable[[], bool]) -> float:
    """Return the longest milliseconds of CPU between two turns of the event loop until something holds."""
    longest, before = 0.0, time.thread_time()
    while not done():
        await asyncio.sleep(0)
        now = time.thread_time()
        longest, before = max(longest, now - before), now
    return longest * 1000


def make_target(url: CanonicalUrl, _: str | None, label: str, __: object = None) -> Target:
    """Return the target of a URL, as `HttpClient.make_target` does for an endpoint without certificates."""
    return Target(url.scheme, url.host, url.port, label=label)


async def _load(url: str, count: int) -> dict[str, float]:
    """Load the routing table whole, and time each step."""
    exclude_the_start()  # as the daemon does
    database = Database(url, connections_max=2, statement_cache_size=100)
    await database.open()
    client = SimpleNamespace(
        policy=SimpleNamespace(allow_ports=DEFAULT_PORTS),
        make_target=make_target,
    )
    settings = SimpleNamespace(
        egress=SimpleNamespace(allow_http=True, user_agent=""),
        delivery=SimpleNamespace(concurrency_per_endpoint=10),
    )
    table = RoutingTable(
        Endpoints(database), cast("Any", settings), cast("Any", client), Keyring({"k1": KEY}),
        profiles=load_profiles([shipped_config_directory() / "profiles"]).profiles, version="1",
        now=lambda: datetime.now(UTC),
    )  # fmt: skip
    began, cpu_began = time.perf_counter(), time.thread_time()
    async with asyncio.TaskGroup() as group:
        group.create_task(table.refresh())
        longest = await _longest_step(lambda: table.version > 0)
    figures = {
        "longest_step_ms": longest,
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.thread_time() - cpu_began,
    }
    await database.close()
    if len(table.endpoints) < count or table.unusable:
        raise RuntimeError("the table is not whole")
    return figures


def _endpoint(number: int) -> Endpoint:
    return Endpoint(
        id=EndpointId(f"ep{number}"), number=number, revision=1, tenant="default", name="n",
        url="https://one.test/", ca_pem=None, profile_name="standard", profile=None,
        state=EndpointState.ACTIVE, subscription=parse_event_types(["*"]), label_filter={}, content_filter=None,
        is_pulled=False, mask=None, body_key="standard", credentials=None,
        shard=7, max_concurrency=10, rate_limit=None, timeout_seconds=15.0,
        retry_policy=RetryPolicy(schedule=(5.0,), jitter_range=None, gone_disables=True), template=None,
        target=None, host_key=("one.test", 443), problem=None, problem_detail="", secrets_change_at=None,
    )  # fmt: skip


class _Others:
    """The routing table, the shards, the sender and the recorder, as lanes use them."""

    def __init__(self) -> None:
        self.endpoints = {e.id: e for e in (_endpoint(number) for number in range(LANES))}
        self.tokens = {7: 1}
        self.recorder = self

    def held(self) -> dict[int, int]:
        """Return shard to token."""
        return self.tokens

    def has_company(self) -> bool:
        """Return false: no other replica fans out."""
        return False

    def is_trusted(self) -> bool:
        """Return whether requests may be started."""
        return True

    def has_room(self) -> bool:
        """Return whether results may be made."""
        return True

    def after_commit(self, _: Callable[[], None]) -> None:
        """Call nothing: nothing is committed."""


async def _forget() -> dict[str, float]:
    """Fill lanes with retries in random order of due time, lose their shard, and time each step."""
    clock, queue, others = SystemClock(), LoadQueue(), cast("Any", _Others())
    inventory = Inventory(clock)
    timer = RetryTimer(
        inventory, queue, clock=clock, horizon_seconds=3600.0, timers_max=LANES * RETRIES_PER_LANE
    )
    crowding = Crowding()
    deferrals = Deferrals(inventory, queue, timer, crowding, clock=clock)
    permits = Permits(
        inventory, queue, others, others, deferrals, crowding, total=500, per_host=50, clock=clock
    )
    follower = LaneFollower(inventory, queue, others, others, permits, crowding)
    follower.follow()
    await _longest_step(lambda: len(inventory.lanes) == LANES)
    everyone = list(inventory.lanes.values())
    for number in range(LANES * RETRIES_PER_LANE):
        entry = inventory.add(everyone[number % LANES], DeliveryId(f"wh_{number}"), DUE, None)
        timer.schedule(entry, 1.0 + number * 7919 % 3_000)
    others.tokens = {}
    began = time.thread_time()
    follower.follow()
    first = (time.thread_time() - began) * 1000
    rest = await _longest_step(lambda: len(inventory) == 0)
    return {
        "longest_step_ms": max(first, rest),
        "total_ms": (time.thread_time() - began) * 1000,
    }


def main() -> None:
    """Run the rounds and print the goals."""
    options = arguments(
        "endpoints",
        __doc__,
        short={"endpoints": 20_000, "rounds": 1},
        full={"endpoints": 20_000, "rounds": 3},
    )
    count = options.endpoints
    forgotten = [uvloop.run(_forget()) for _ in range(5)]
    full: list[dict[str, float]] = []
    with postgres() as (_, url), receiver() as target, tempfile.TemporaryDirectory() as name:
        empty = [_round(url, Path(name), 0, first_type=None) for _ in range(options.rounds)]
        asyncio.run(fill(url, target.url, count))
        loaded = [uvloop.run(_load(url, count)) for _ in range(3)]
        for number in range(options.rounds):
            full.append(_round(url, Path(name), count, first_type=f"first.n{number}"))
            print({key: round(value, 2) for key, value in full[-1].items()})
    none_kb = statistics.median(one["memory_kb"] for one in empty)
    goals = [
        Goal(11, f"{count:,} endpoints: seconds to ready", 5.0,
             [one["ready_seconds"] for one in full], at_least=False),
        Goal(11, "seconds to the first request", 5.0,
             [one["first_request_seconds"] for one in full], at_least=False),
        Goal(11, "seconds of the daemon's CPU until the first request", 5.0,
             [one["first_request_cpu_seconds"] for one in full], at_least=False),
        Goal(11, "KB of memory per endpoint", 10.0,
             [(one["memory_kb"] - none_kb) / count for one in full], at_least=False),
        Goal(11, "ms from the commit of one change to the request", 100.0,
             [one["changed_ms"] for one in full], at_least=False),
        Goal(11, "idle CPU, percent of a core", 3.0,
             [one["idle_percent"] for one in full], at_least=False),
        Goal(11, "longest step of the event loop while all are loaded, ms of CPU", 50.0,
             [one["longest_step_ms"] for one in loaded], at_least=False),
        Goal(11, f"longest step, ms of CPU: {LANES:,} lanes with {LANES * RETRIES_PER_LANE:,} retries forgotten", 20.0,
             [one["longest_step_ms"] for one in forgotten], at_least=False),
    ]  # fmt: skip
    figures = {
        "endpoints": count,
        "empty": empty,
        "full": full,
        "loaded": loaded,
        "forgotten": forgotten,
    }
    write_results("endpoints", cast("dict[str, object]", figures), options.json, goals)


if __name__ == "__main__":
    main()
