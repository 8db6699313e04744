"""What each stage of the hot path costs by itself: CPU µs a delivery, without sockets and without Postgres.

`python -m benchmarks stages [--short] [--rounds N] [--against COMMIT|FOLDER] [--json PATH]`. The
stages are the daemon's own, fed by hand: fan-out gets a claim that writes nowhere, the exchange a transport that
answers by itself, the recorder a store that has recorded everything at once, the log a file that
keeps nothing. What is left is our own work, so the figures can be compared from one change to the
next: the lowest of many rounds is hardly moved by what else the machine does.

With `--against`, another version of this project measures its own stages by its own copy of this file,
in turns with this one. The ratio of each turn is of the sums of the lowest figures.
"""

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import orjson

from benchmarks.contenders import checkouts
from benchmarks.harness import BODY_DATA, ROOT, SECRET, Checkout, Goal, arguments, write_results
from dispatcher.config.profiles import load_profiles
from dispatcher.core.matching import parse_event_types
from dispatcher.core.model import EndpointId, EndpointState, Event, EventId
from dispatcher.core.outcome import RetryPolicy
from dispatcher.core.request import RequestTemplate
from dispatcher.core.secret import Secret
from dispatcher.core.signing import Signer
from dispatcher.delivery.crowding import Crowding
from dispatcher.delivery.deferrals import Deferrals
from dispatcher.delivery.endpoint import Endpoint
from dispatcher.delivery.fanout import Fanout
from dispatcher.delivery.inventory import Inventory
from dispatcher.delivery.lane_follower import LaneFollower
from dispatcher.delivery.lanes import Lanes
from dispatcher.delivery.load_queue import LoadQueue
from dispatcher.delivery.permits import Permits
from dispatcher.delivery.recorder import Recorder
from dispatcher.delivery.reporting.attempt_log import AttemptLog
from dispatcher.delivery.reporting.traffic_counts import TrafficCounts
from dispatcher.delivery.retry_timer import RetryTimer
from dispatcher.delivery.sender import Sender
from dispatcher.delivery.types import AttemptResult
from dispatcher.outbound.connection import Connection
from dispatcher.outbound.pool import Connections, Target
from dispatcher.runtime.clock import SystemClock
from dispatcher.store.results import Recorded
from dispatcher.telemetry import logs
from dispatcher.telemetry.metrics import Metrics

IN_FLIGHT = 64
BATCH = 500
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n"
    b"Connection: keep-alive\r\n\r\nok"
)
ENDPOINT_ID = EndpointId("ep_" + "a" * 26)


def _endpoint(target: Target) -> Endpoint:
    profile = load_profiles([ROOT / "config" / "profiles"]).profiles["standard"]
    template = RequestTemplate(
        profile=profile,
        target="/hook",
        host_header="127.0.0.1:8080",
        user_agent="dispatcher/1",
        custom_headers={},
        signer=Signer(profile, [Secret(SECRET)]),
    )
    policy = RetryPolicy(schedule=(5.0,), jitter_range=None, gone_disables=True)
    return Endpoint(
        id=ENDPOINT_ID,
        number=1,
        revision=1,
        tenant="default",
        name="stages",
        url="http://127.0.0.1:8080/hook",
        ca_pem=None,
        credentials=None,
        profile_name="standard",
        profile=profile,
        state=EndpointState.ACTIVE,
        subscription=parse_event_types(["*"]),
        label_filter={},
        content_filter=None,
        is_pulled=False,
        mask=None,
        body_key="standard",
        shard=7,
        max_concurrency=IN_FLIGHT,
        rate_limit=None,
        timeout_seconds=15.0,
        retry_policy=policy,
        template=template,
        target=target,
        host_key=("127.0.0.1", 8080),
        problem=None,
        problem_detail="",
        secrets_change_at=None,
    )


class _Routing:
    """Routes everything to one endpoint."""

    version = 1

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoints = [endpoint]

    async def refresh(self) -> None:
        """Never called: the version never changes."""

    def has_order(self) -> bool:
        """Returns that the endpoint has no order."""
        return False

    def has_filters(self) -> bool:
        """Returns that the endpoint has no filter."""
        return False

    def route(self, _: Event) -> Sequence[Endpoint]:
        """Returns the one endpoint."""
        return self._endpoints


class _Claim:
    """A claim that writes nowhere."""

    def __init__(self, events: list[Event], at: datetime) -> None:
        self.events = events
        self.routing_version = 1
        self.accepted_at = at
        self.day = at.date()
        self.lost: frozenset[str] = frozenset()

    async def write(self, *_: object) -> None:
        """Writes nothing."""


class _Outbox:
    """Hands the same events out again and again."""

    def __init__(self, events: list[Event]) -> None:
        self._claim = _Claim(events, datetime.now(UTC))

    @asynccontextmanager
    async def claim(self, *_: object) -> AsyncIterator[_Claim]:
        """Yields the batch."""
        yield self._claim


class _Store:
    """Has recorded everything at once."""

    async def record(self, *_: object) -> Recorded:
        """Records nothing."""
        return Recorded(frozenset(), frozenset())


class _Health:
    """Endpoints are well."""

    async def follow_up(self, *_: object) -> None:
        """Records nothing."""


class _Transport:
    """Remembers who wrote, so that `answer` can answer all of them, as one turn of the loop does."""

    def __init__(self, written: list[Connection]) -> None:
        self._written = written
        self.connection: Connection | None = None
        self._pipe = os.pipe()

    def get_extra_info(self, name: str) -> Any:  # noqa: ANN401 -- as asyncio has it
        """Returns a pipe nobody writes to, or an address."""
        return self if name == "socket" else ("127.0.0.1", 8080)

    def fileno(self) -> int:
        """Returns the quiet end of the pipe."""
        return self._pipe[0]

    def is_closing(self) -> bool:
        """Never."""
        return False

    def get_write_buffer_size(self) -> int:
        """Everything was sent."""
        return 0

    def write(self, _: bytes) -> None:
        """Sends."""
        self._written.append(cast("Connection", self.connection))

    def abort(self) -> None:
        """Ends."""
        for end in self._pipe:
            os.close(end)


class Bench:
    """The stages, wired by hand; each measure takes the same deliveries through one of them."""

    def __init__(self) -> None:
        clock = SystemClock()
        self.target = Target("http", "127.0.0.1", 8080)
        self.endpoint = _endpoint(self.target)
        self.results: list[AttemptResult] = []
        self.may_send = False
        self._written: list[Connection] = []
        self.connections = Connections(cast("Any", None), spawn=cast("Any", None))
        self.inventory = Inventory(clock)
        queue = LoadQueue()
        timer = RetryTimer(
            self.inventory, queue, clock=clock, horizon_seconds=600.0, timers_max=1000
        )
        self.recorder = Recorder(
            cast("Any", _Store()), cast("Any", _Health()), self.inventory, timer, queue, cast("Any", self),
            clock=clock, batch_rows_max=BATCH, unrecorded_max=5000, flush_seconds=0.04,
        )  # fmt: skip
        self.sender = Sender(self.connections, self.recorder, clock=clock)
        self.recorder.add = self._keep  # type: ignore[method-assign]  # recorded as a stage of its own
        crowding = Crowding()
        deferrals = Deferrals(self.inventory, queue, timer, crowding, clock=clock)
        self.permits = Permits(
            self.inventory, queue, self.sender, cast("Any", self), deferrals, crowding,
            total=500, per_host=IN_FLIGHT, clock=clock,
        )  # fmt: skip
        self.lanes = Lanes(
            self.inventory, queue, deferrals, self.permits, crowding, cast("Any", self),
            bodies_bytes_max=1 << 30, clock=clock,
        )  # fmt: skip
        follower = LaneFollower(
            self.inventory, queue, cast("Any", self), cast("Any", self), self.permits, crowding
        )
        self.endpoints = {ENDPOINT_ID: self.endpoint}
        follower.follow()
        for _ in range(IN_FLIGHT):
            self._open()
        metrics = Metrics(version="1", profiles=["standard"])
        self.traffic = TrafficCounts(
            cast("Any", None),
            incarnation="i",
            breakers=dict,
            figures=dict,
            clock=clock,
        )
        self.log = AttemptLog(metrics, self.traffic, replica="replica", per_endpoint=False)
        at = datetime.now(UTC)
        events = [
            Event(EventId(f"evt_2026_{n:06d}"), "order.created", BODY_DATA, "default", at, at, {}, None)
            for n in range(BATCH)
        ]  # fmt: skip
        self.fanout = Fanout(
            cast("Any", _Outbox(events)), cast("Any", None), cast("Any", _Routing(self.endpoint)), self.lanes,
            self.permits, cast("Any", self), clock=clock, incarnation="bench", batch_bytes_max=1 << 24,
        )  # fmt: skip

    # --- what stands around the stages ---

    def held(self) -> dict[int, int]:
        """Return shard to token."""
        return {7: 1}

    def has_company(self) -> bool:
        """Return false: no other replica fans out."""
        return False

    def is_trusted(self) -> bool:
        """Stands for the lease; nothing is sent while fan-out is measured."""
        return self.may_send

    def fanned_out(self, events: list[Event], unmatched: list[str]) -> None:
        """Stands for reporting, which is a stage of its own."""
        del events, unmatched

    def flushed(self, *_: object) -> None:
        """Stands for reporting."""

    def recorded(self, *_: object) -> None:
        """Stands for reporting."""

    def _keep(self, result: AttemptResult) -> None:
        self.results.append(result)

    def _open(self) -> None:
        transport = _Transport(self._written)
        connection = transport.connection = Connection(
            cast("Any", transport),
            release=lambda _: None,
            on_lost=lambda _: None,
            monotonic=time.monotonic,
        )
        self.connections._open[connection] = self.target  # noqa: SLF001 -- the harness stands in for the network
        self.target.idle.append(connection)

    async def fan_out(self) -> None:
        """Events become deliveries in their lane's line."""
        self.may_send = False
        await self.fanout(BATCH)

    def exchange(self) -> None:
        """Deliveries go through lanes, sender and exchange, and become results."""
        self.results.clear()
        now = time.monotonic()
        for connection in self.target.idle:
            connection.idle_since = now
        self.may_send = True
        self.permits.pump()
        written = self._written
        while written:
            turn = written[:]
            written.clear()
            for connection in turn:
                connection.data_received(ANSWER)

    async def record(self) -> None:
        """Results become rows, and their deliveries leave memory."""
        for result in self.results:
            Recorder.add(self.recorder, result)
        self.recorder.stop()
        await self.recorder.run()

    def report(self) -> None:
        """Committed results are counted and logged."""
        self.log.write(self.results, frozenset())


async def measure(rounds: int) -> dict[str, list[float]]:
    """Returns CPU µs a delivery for each stage, one figure a round."""
    bench = Bench()
    figures: dict[str, list[float]] = {}

    async def timed(name: str, action: Callable[[], Any]) -> None:
        before = time.thread_time()
        outcome = action()
        if outcome is not None:
            await outcome
        figures.setdefault(name, []).append((time.thread_time() - before) / BATCH * 1e6)

    for _ in range(rounds):
        await timed("fanout", bench.fan_out)
        await timed("lanes, sender, exchange", bench.exchange)
        await timed("recorder", bench.record)
        await timed("metrics and log", bench.report)
        await asyncio.sleep(0)
    for connection in bench.target.idle:
        connection.abort()
    return figures


TURNS = 5


def _measured_by(version: Checkout, rounds: int) -> dict[str, float]:
    """Returns the lowest figure of each stage of a version."""
    with tempfile.NamedTemporaryFile(suffix=".json") as results:
        version.run("-m", "benchmarks", "stages", "--rounds", str(rounds), "--json", results.name)
        stages = orjson.loads(Path(results.name).read_bytes())["cpu_us"]
    return {name: min(values) for name, values in stages.items()}


def compare(against: str, rounds: int, path: str | None) -> None:
    """Measures the stages of two versions in turns, and prints the lowest figure of each."""
    with checkouts([against]) as versions:
        turns = [{one.name: _measured_by(one, rounds) for one in versions} for _ in range(TURNS)]
    ours, theirs = (one.name for one in versions)
    for name in (ours, theirs):
        lowest = {stage: min(turn[name][stage] for turn in turns) for stage in turns[0][name]}
        print(f"{name}: {sum(lowest.values()):.2f} µs")
        for stage, value in lowest.items():
            print(f"  {stage:<24} {value:6.2f} µs")
    ratios = [sum(turn[ours].values()) / sum(turn[theirs].values()) for turn in turns]
    write_results(
        "stages_against",
        {"rounds": rounds, "against": theirs, "lowest_us": turns},
        path,
        [Goal(2, f"CPU of the stages over that of {theirs}", 1.0, ratios, at_least=False)],
    )


def main() -> None:
    """Prints the lowest and the median of each stage."""
    options = arguments(
        "stages", __doc__, short={"rounds": 200}, full={"rounds": 1_000}, against=True
    )
    if options.against:
        compare(options.against, options.rounds, options.json)
        return
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 -- a descriptor is wanted
        logs.configure(form="json", level="info", version="1", descriptor=nowhere.fileno())
        figures = asyncio.run(measure(options.rounds))
        logs.shut_down()
    for name, values in figures.items():
        print(f"  {name:<24} {min(values):6.2f} µs, median {statistics.median(values):6.2f}")
    print(f"  {'all':<24} {sum(map(min, figures.values())):6.2f} µs")
    write_results("stages", {"rounds": options.rounds, "cpu_us": figures}, options.json)


if __name__ == "__main__":
    main()
