"""Hostile receivers under load: the daemon's memory stays under a ceiling, and those who behave are served."""

import asyncio
import contextlib
import sys
from pathlib import Path

import pytest

from tests.support.checker import Subscriber
from tests.support.daemon import STANDARD_SECRET, add_endpoint, until
from tests.support.hostile_receivers import HOSTILE
from tests.support.ledger import Plan
from tests.support.raw_receiver import RawReceiver

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

RESIDENT_KIB_MAX = 256 * 1_024
GROWTH_KIB_MAX = 48 * 1_024
"""4 MiB were measured in the short form; the control is beyond it within seconds."""
CONCURRENCY = 4
EVENTS_PER_SECOND = 20
UNBOUNDED = (
    "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], b'x', timeout=60).read()"
)


def _resident_kib(pid: int, name: str) -> int:
    """Returns `VmRSS`, what is resident now, or `VmHWM`, the most that ever was: the kernel misses no peak."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(600)
async def test_hostile_receivers_under_load_do_not_grow_the_daemon(bench, sql, long_run):
    """F8: endless bodies, heads, chunks and trailers, bombs and silence, beside one that behaves."""
    seconds = 240 if long_run else 15
    bench.receiver.behave(hook={"secret": STANDARD_SECRET})
    await add_endpoint(sql, "ep_good", bench.receiver.url("/hook"))
    async with contextlib.AsyncExitStack() as serving:
        receivers = {
            name: await serving.enter_async_context(RawReceiver(script()))
            for name, script in HOSTILE.items()
        }
        for number, receiver in enumerate(receivers.values()):
            await add_endpoint(
                sql,
                f"ep_{number}",
                f"http://127.0.0.1:{receiver.port}/",
                max_concurrency=CONCURRENCY,
                timeout_seconds=2.0,
                retry_schedule_seconds=[0.5] * 3,
            )
        daemon = await bench.daemon().started()
        await bench.produced(Plan(url=bench.url, events_count=20, prefix="warm"))
        await bench.receiver.received(20)
        before = _resident_kib(daemon.child.pid, "VmRSS")
        plan = Plan(
            url=bench.url,
            events_count=seconds * EVENTS_PER_SECOND,
            events_per_second=EVENTS_PER_SECOND,
            seed=8,
        )
        await bench.produced(plan, seconds=seconds + 30)

        async def served() -> bool:
            return not await sql.fetchval(
                "SELECT EXISTS (SELECT FROM dispatcher.outbox WHERE consumed_at IS NULL)"
                " OR EXISTS (SELECT FROM dispatcher.delivery_open AS o JOIN dispatcher.endpoint AS p"
                " ON p.number = o.endpoint_no WHERE p.id = 'ep_good')"
            )

        await until(served, seconds=30, what="the receiver that behaves to have all")
        most = _resident_kib(daemon.child.pid, "VmHWM")
        asked = {name: receiver.connection_count for name, receiver in receivers.items()}
    await bench.report(
        "F8",
        [Subscriber("ep_good", "/hook")],
        seed=8,
        load_seconds=seconds,
        resident_mib_before=before // 1_024,
        resident_mib_most=most // 1_024,
        hostile_connections=sum(asked.values()),
    )
    assert min(asked.values()) >= CONCURRENCY, asked
    assert most <= RESIDENT_KIB_MAX
    assert most - before <= GROWTH_KIB_MAX


@pytest.mark.slow
async def test_f8_control_unbounded_client_is_over_the_bound_in_seconds():
    async with RawReceiver(HOSTILE["endless body"]()) as receiver:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", UNBOUNDED, f"http://127.0.0.1:{receiver.port}/"
        )
        try:

            async def is_over() -> bool:
                return _resident_kib(child.pid, "VmHWM") > 2 * GROWTH_KIB_MAX + 32 * 1_024

            await until(is_over, seconds=60, what="a client without a bound to be over it")
        finally:
            child.kill()
            await child.wait()
