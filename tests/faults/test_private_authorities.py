"""Many endpoints with certificates of their own: the start, the memory and the event loop stay as they are."""

import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.daemon import add_endpoint, until
from tests.support.ledger import Plan
from tests.support.raw_receiver import OK, RawReceiver, answering

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

ENDPOINTS_COUNT = 1_200
START_SECONDS_MAX = 2.0
RESIDENT_MIB_MAX = 150


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
    bench, sql, tmp_path: Path, authority_of_receiver: Authority, say
):
    tls = authority_of_receiver.server_context("127.0.0.1")
    # What a daemon without endpoints takes is the machine's and the test's, not the certificates'.
    bare = bench.daemon(name="bare")
    began_at = time.monotonic()
    await bare.started()
    bare_seconds = time.monotonic() - began_at
    bare_cpu_seconds = _cpu_seconds(bare.child.pid)
    bare.stop()
    async with RawReceiver(answering(OK), tls=tls) as receiver, sql.transaction():
        for number in range(ENDPOINTS_COUNT):
            own = Authority(tmp_path, name=f"Authority {number}")
            await add_endpoint(
                sql,
                f"ep_{number:04}",
                f"https://127.0.0.1:{receiver.port}/",
                secret="whsec_" + "A" * 40,
                shard=number % 64,
                ca_pem=own.pem + authority_of_receiver.pem,
            )
    async with RawReceiver(answering(OK), tls=tls) as receiver:
        await sql.execute(
            "UPDATE dispatcher.endpoint SET url = $1", f"https://127.0.0.1:{receiver.port}/"
        )
        began_at = time.monotonic()
        daemon = bench.daemon()
        await daemon.started(seconds=60)
        seconds = time.monotonic() - began_at
        cpu_seconds = _cpu_seconds(daemon.child.pid)
        resident = _resident_mib(daemon.child.pid, "VmHWM")
        await bench.produced(Plan(url=bench.url, events_count=1, prefix="one"))

        async def delivered() -> bool:
            return len(receiver.requests) >= ENDPOINTS_COUNT

        await until(delivered, seconds=120, what="a delivery to each endpoint")
        after = _resident_mib(daemon.child.pid, "VmHWM")
    say(
        f"{ENDPOINTS_COUNT} endpoints with ca_pem: started in {seconds:.2f} s ({cpu_seconds:.2f} s of CPU),"
        f" without any {bare_seconds:.2f} s ({bare_cpu_seconds:.2f} s); {resident} MiB at start,"
        f" {after} MiB after a delivery to each"
    )
    assert min(seconds, cpu_seconds) <= START_SECONDS_MAX
    assert max(resident, after) <= RESIDENT_MIB_MAX


CONTEXTS_OF_ROOTS = """
import ssl, sys
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
