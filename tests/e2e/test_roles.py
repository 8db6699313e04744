"""One process delivers, another serves the API; several processes are one service."""

import asyncio
import os
import signal
import urllib.request
from pathlib import Path

import asyncpg
import orjson
import pytest
from aiohttp import ClientSession

from dispatcher.supervisor import merged_metrics
from tests.support.checker import Subscriber
from tests.support.daemon import STANDARD_SECRET, add_endpoint, free_port, quiet, until
from tests.support.ledger import Plan

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

TOKEN = "admin-token-of-the-tests-0123456789"  # noqa: S105 -- of the tests


async def publish(port: int, count: int) -> list[int]:
    """Publishes events over HTTP; returns the statuses."""
    body = orjson.dumps({"type": "order.created", "data": {}})
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    statuses = []
    async with ClientSession() as session:
        for _ in range(count):
            url = f"http://127.0.0.1:{port}/api/v1/events"
            async with session.post(url, data=body, headers=headers) as response:
                statuses.append(response.status)
    return statuses


def niceness(process_id: int) -> set[int]:
    """Return the niceness of each thread of a process."""
    threads = Path(f"/proc/{process_id}/task").iterdir()
    return {os.getpriority(os.PRIO_PROCESS, int(thread.name)) for thread in threads}


async def test_a_process_that_serves_the_api_alone_has_a_lower_priority(bench):
    own = os.getpriority(os.PRIO_PROCESS, 0)
    daemons = {
        name: await bench.daemon(name=name, arguments=["--role", role], **settings).started()
        for name, role, settings in (
            ("delivery", "delivery", {}),
            ("api", "api", {}),
            ("gentle", "api", {"HTTP__NICE": "15"}),
            ("unchanged", "api", {"HTTP__NICE": "0"}),
        )
    }
    assert {name: niceness(daemon.child.pid) for name, daemon in daemons.items()} == {
        "delivery": {own},
        "api": {max(own, 5)},
        "gentle": {max(own, 15)},
        "unchanged": {own},
    }


async def test_api_role_takes_no_lease_and_delivery_role_serves_probes(bench, sql):
    bench.receiver.behave(hook={"secret": STANDARD_SECRET})
    await add_endpoint(sql, "ep_x", bench.receiver.url("/hook"))
    api = await bench.daemon(name="api", arguments=["--role", "api"], ADMIN_TOKEN=TOKEN).started()
    assert await publish(api.port, 3) == [201, 201, 201]
    assert (await api.get("/readyz"))[0] == 200
    assert "dispatcher_listener_up " not in (await api.get("/metrics"))[1]
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.replica") == 0
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.outbox") == 3
    delivery = await bench.daemon(name="delivery", arguments=["--role", "delivery"]).started()
    await bench.receiver.received(3)
    await quiet(bench.url, seconds=20)
    assert await sql.fetch("SELECT name FROM dispatcher.replica") == [("delivery",)]
    assert [(await delivery.get(path))[0] for path in ("/livez", "/readyz", "/metrics")] == [
        200
    ] * 3
    assert [(await delivery.get(path))[0] for path in ("/", "/api/v1/events")] == [503, 503]
    for daemon in (api, delivery):
        daemon.kill(15)
        assert await daemon.ended(20) == 0


def children_of(process_id: int) -> list[int]:
    listed = Path(f"/proc/{process_id}/task/{process_id}/children").read_text()
    return [int(one) for one in listed.split()]


def exists(process_id: int) -> bool:
    """Whether the process runs; a zombie does not."""
    path = Path(f"/proc/{process_id}/stat")
    return path.exists() and path.read_text().rpartition(")")[2].split()[0] != "Z"


def cpu_seconds(process_id: int) -> float:
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def probe(port: int, path: str) -> tuple[int, str]:
    def ask() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    return await asyncio.to_thread(ask)


async def is_ready(port: int) -> bool:
    return (await probe(port, "/readyz"))[0] == 200


async def owners(sql: asyncpg.Connection) -> int:
    return int(
        await sql.fetchval(
            "SELECT count(DISTINCT owner) FROM dispatcher.shard WHERE owner IS NOT NULL"
        )
    )


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_killed_child_loses_nothing_and_is_started_again(bench, sql, long_run):
    """H5: two processes under load, each killed once; then SIGHUP and SIGTERM."""
    bench.receiver.behave(a={"secret": STANDARD_SECRET}, b={"secret": STANDARD_SECRET})
    for name, shard in (("a", 3), ("b", 50)):
        await add_endpoint(
            sql, f"ep_{name}", bench.receiver.url(f"/{name}"), shard=shard, max_concurrency=10
        )
    port = free_port()
    settings = {
        "HTTP__PROBE_PORT": str(port),
        "ADMIN_TOKEN": TOKEN,
        "RECORDER__UNRECORDED_MAX": "50",
        "RECORDER__BATCH_ROWS": "50",
    }
    service = bench.daemon(arguments=["--processes", "2"], **settings)
    await service.said("supervisor.started", seconds=30)
    await until(lambda: is_ready(port), seconds=60, what="both are ready")

    async def are_divided() -> bool:
        return await owners(sql) == 2

    await until(are_divided, seconds=30, what="the processes divide the shards")
    assert (await service.get("/metrics"))[0] != 200, "one port has all of them"
    metrics = (await probe(port, "/metrics"))[1]
    assert [f'dispatcher_listener_up{{process="{n}"}} 1' in metrics for n in (0, 1)] == [True, True]
    assert metrics.count("# TYPE dispatcher_listener_up") == 1
    producer = bench.produce(
        Plan(
            url=bench.url,
            events_count=900 if long_run else 500,
            events_per_second=100,
            writers=2,
            seed=5,
        )
    )
    for number in range(2 if long_run else 1):
        await bench.receiver.received(200 * (number + 1), seconds=60)
        before = children_of(service.child.pid)
        os.kill(before[0], signal.SIGKILL)

        async def is_replaced(before: list[int] = before) -> bool:
            new = set(children_of(service.child.pid)) - set(before)
            return len(new) == 1 and await is_ready(port)

        await until(is_replaced, seconds=60, what="another child is ready in its place")
    assert await producer.ended(90) == 0
    await quiet(bench.url, seconds=60)
    await bench.report(
        "H5",
        [Subscriber("ep_a", "/a"), Subscriber("ep_b", "/b")],
        seed=5,
        bounds={"dup": 2 * 50, "unrecorded": 2 * 50},
    )
    assert await publish(service.port, 1) == [201]
    service.kill(signal.SIGHUP)
    await service.said("settings.reloaded", count=2)
    used = cpu_seconds(service.child.pid)
    await asyncio.sleep(5)  # the time over which CPU is measured, not a wait for something
    assert cpu_seconds(service.child.pid) - used <= 0.05, "the supervisor's CPU is below 1 %"
    other = bench.daemon(arguments=["--processes", "2"], **settings)
    assert await other.ended(30) == 2, "the port is in use"
    assert (
        "http.probe_port" in other.log_path.read_text() or "http.port" in other.log_path.read_text()
    )
    children = children_of(service.child.pid)
    service.kill(signal.SIGTERM)
    assert await service.ended(60) == 0
    assert not any(map(exists, children))


async def test_ctrl_c_on_a_terminal_drains_every_process(bench):
    service = bench.daemon(arguments=["--processes", "2"], HTTP__PROBE_PORT=str(free_port()))
    await service.said("daemon.started", count=2, seconds=60)
    everyone = [service.child.pid, *children_of(service.child.pid)]
    group = os.getpgid(service.child.pid)
    for process_id in [one for one in everyone if os.getpgid(one) == group]:
        os.kill(process_id, signal.SIGINT)
    assert await service.ended(60) == 0
    assert (len(service.lines("daemon.stopped")), service.lines("daemon.aborted")) == (2, [])


async def test_processes_that_are_stopped_while_they_start_exit_with_0(bench):
    service = bench.daemon(arguments=["--processes", "2"], HTTP__PROBE_PORT=str(free_port()))
    await service.said("supervisor.started", seconds=30)
    service.kill(signal.SIGTERM)
    assert await service.ended(60) == 0


async def test_children_drain_when_their_supervisor_is_killed(bench):
    service = bench.daemon(arguments=["--processes", "2"], HTTP__PROBE_PORT=str(free_port()))
    await service.said("daemon.started", count=2, seconds=60)
    children = children_of(service.child.pid)
    service.kill()
    await service.ended(10)

    async def are_gone() -> bool:
        return not any(map(exists, children))

    await until(are_gone, seconds=30, what="the children have drained")
    assert len(service.lines("daemon.stopped")) == 2


def test_merged_metrics_have_each_metric_once_and_a_label_of_the_process():
    text = b'# HELP a A.\n# TYPE a counter\na_total 1\n# HELP b B.\n# TYPE b gauge\nb{x="1 {"} 2\n'
    merged = merged_metrics({0: text, 1: text}).decode().splitlines()
    assert merged == [
        *("# HELP a A.", "# TYPE a counter", 'a_total{process="0"} 1', 'a_total{process="1"} 1'),
        *("# HELP b B.", "# TYPE b gauge", 'b{process="0",x="1 {"} 2', 'b{process="1",x="1 {"} 2'),
    ]


@pytest.mark.parametrize(
    ("arguments", "environ", "named"),
    [
        (["--processes", "2"], {}, "http.probe_port"),
        (["--role", "api"], {"DISPATCHER_SECRET_KEYS": ""}, "DISPATCHER_SECRET_KEYS"),
        (["--role", "delivery"], {"DISPATCHER_DATABASE_URL": ""}, "DISPATCHER_DATABASE_URL"),
        (["--role", "both"], {}, "--role"),
    ],
)
async def test_a_role_without_its_setting_exits_with_2(bench, arguments, environ, named):
    daemon = bench.daemon(arguments=arguments, process_environ=environ)
    assert await daemon.ended(30) == 2
    assert named in daemon.log_path.read_text()
