"""Many endpoints with certificates of their own: the start, the memory and the event loop stay as they are."""

import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.daemon import Daemon, add_endpoint, until
from tests.support.pace import in_time
from tests.support.raw_receiver import OK, RawReceiver, answering

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

ENDPOINTS_COUNT = 1_200
START_SECONDS_MAX = 2.0
EXTRA_CPU_SECONDS_MAX = 0.5
"""What 1,200 private authorities may add to the start; it was 20 s with a TLS context for each."""
RESIDENT_MIB_MAX = 143
"""150 MB; 90 MiB were measured, 82 with one endpoint."""
AFTER_MIB_MAX = 200
"""With an idle connection to each endpoint, which costs some 40 KiB whatever it trusts; 147 MiB were measured."""
_PUBLISH = "INSERT INTO dispatcher.outbox (type, data) VALUES ($1, '{}')"


def _resident_mib(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) // 1_024


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, which a busy machine does not stretch as it does the clock."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(300)
async def test_a29_1200_private_authorities_start_fast_and_stay_small(
    bench, sql, tmp_path: Path, authority_of_receiver: Authority, say, long_run: bool
):
    tls = authority_of_receiver.server_context("127.0.0.1")
    async with RawReceiver(answering(OK), tls=tls) as receiver:
        url = f"https://127.0.0.1:{receiver.port}/"

        async def first_delivery() -> tuple[Daemon, float, float, int]:
            """Start a daemon on a committed event; return it, and the seconds, CPU and MiB until the delivery."""
            count = len(receiver.requests)
            await sql.execute(_PUBLISH, "first.event")
            began_at = time.monotonic()
            daemon = bench.daemon()

            async def delivered() -> bool:
                return len(receiver.requests) > count

            await until(delivered, seconds=120, what="the first delivery")
            seconds, pid = time.monotonic() - began_at, daemon.child.pid
            return daemon, seconds, _cpu_seconds(pid), _resident_mib(pid, "VmHWM")

        await add_endpoint(
            sql, "ep_first", url, event_types=["first.event"], ca_pem=authority_of_receiver.pem
        )
        daemon, bare_seconds, bare_cpu_seconds, bare_mib = await first_delivery()
        daemon.stop()
        async with sql.transaction():
            for number in range(ENDPOINTS_COUNT):
                own = Authority(tmp_path, name=f"Authority {number}")
                await add_endpoint(
                    sql,
                    f"ep_{number:04}",
                    url,
                    event_types=["every.event"],
                    shard=number % 64,
                    ca_pem=own.pem + authority_of_receiver.pem,
                )
        daemon, seconds, cpu_seconds, resident_mib = await first_delivery()
        await sql.execute(_PUBLISH, "every.event")

        async def all_delivered() -> bool:
            return len(receiver.requests) >= ENDPOINTS_COUNT

        say(
            f"{ENDPOINTS_COUNT} endpoints with ca_pem: first delivery {seconds:.2f} s after the start"
            f" ({cpu_seconds:.2f} s of CPU, {resident_mib} MiB); with one endpoint {bare_seconds:.2f} s"
            f" ({bare_cpu_seconds:.2f} s, {bare_mib} MiB)"
        )
        await until(all_delivered, seconds=120, what="a delivery to each endpoint")
        after_mib = _resident_mib(daemon.child.pid, "VmHWM")
    say(f"after a delivery to each of them {after_mib} MiB")
    # Most of a start are imports, whose time differs twofold between moments of one machine. The long form runs
    # alone, and has the absolute bound.
    assert in_time(cpu_seconds - bare_cpu_seconds, EXTRA_CPU_SECONDS_MAX)
    if long_run:
        assert in_time(seconds, START_SECONDS_MAX)
    assert resident_mib <= RESIDENT_MIB_MAX
    assert after_mib <= AFTER_MIB_MAX


CONTEXTS_OF_ROOTS = """
import ssl, sys
from tests.support.pace import in_time
from tests.support.pace import in_time
contexts = []
for _ in range(60):
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=sys.argv[1])
    contexts.append(context)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")))
"""


@pytest.mark.slow
def test_a29_control_system_roots_in_each_context_take_the_memory(tmp_path: Path):
    if not ssl.create_default_context().cert_store_stats()["x509_ca"]:
        pytest.skip("this machine has no file of system roots")
    child = [sys.executable, "-c", CONTEXTS_OF_ROOTS, Authority(tmp_path).pem]
    kib = int(subprocess.run(child, capture_output=True, check=True).stdout)
    assert kib / 1_024 * ENDPOINTS_COUNT / 60 > 2 * RESIDENT_MIB_MAX


@pytest.fixture
def authority_of_receiver(tmp_path: Path) -> Authority:
    return Authority(tmp_path, name="The receiver's authority")
