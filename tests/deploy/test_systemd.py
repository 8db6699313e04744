"""The units: what they grant, and that the daemon lives within it, notify socket and watchdog included."""

import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.config.settings import SPECIALS
from tests.support.daemon import STANDARD_SECRET, add_endpoint, quiet
from tests.support.ledger import Plan
from tests.support.tools import need

EXPOSURE_MAX = 1.5
UNITS = ("dispatcher.service", "dispatcher@.service")
# Refuses memory that was writable and becomes executable, as MemoryDenyWriteExecute= does.
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
UNDER_MDWE = (
    "import ctypes, os, sys\n"
    f"if ctypes.CDLL(None).prctl({PR_SET_MDWE}, {PR_MDWE_REFUSE_EXEC_GAIN}, 0, 0, 0): os._exit(99)\n"
    "os.execvp(sys.argv[1], sys.argv[1:])\n"
)

Unit = dict[str, list[str]]


def read(path: Path) -> Unit:
    """Returns each key's values in order, over all sections."""
    found: Unit = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.fixture(params=UNITS)
def unit_path(request: pytest.FixtureRequest, deploy: Path) -> Path:
    path: Path = deploy / "systemd" / request.param
    return path


def test_exposure_is_within_its_bound(unit_path):
    output = subprocess.run(
        [need("systemd-analyze", package="systemd"), "security", "--offline=true", "--no-pager",
         str(unit_path)],
        check=False, capture_output=True, text=True,
    ).stdout  # fmt: skip
    found = re.search(r"Overall exposure level for .*: ([0-9.]+)", output)
    assert found, output
    assert float(found[1]) <= EXPOSURE_MAX


def test_systemd_knows_every_key_and_value(unit_path, tmp_path):
    """`verify` has one complaint only: the program is not installed here."""
    name = unit_path.name.replace("@.", "@8081.")
    (tmp_path / unit_path.name).write_bytes(unit_path.read_bytes())
    done = subprocess.run(
        [need("systemd-analyze", package="systemd"), "verify", "--man=no", str(tmp_path / name)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    ours = [line for line in done.stderr.splitlines() if "dispatcher" in line]
    assert [line for line in ours if "is not executable" not in line] == []


def test_limits_fit_the_defaults_of_the_daemon(unit_path):
    from dispatcher.config.sections import DeliverySettings  # noqa: PLC0415 -- beside its use

    unit = read(unit_path)
    defaults = DeliverySettings()
    assert float(unit["TimeoutStopSec"][0]) >= defaults.drain_seconds + 10
    assert int(unit["LimitNOFILE"][0]) >= 10 * defaults.concurrency_total
    assert unit["RestartPreventExitStatus"] == ["2"]
    assert unit["Type"] == ["notify"]


def test_each_credential_is_loaded_and_read_by_a_variable_that_exists(unit_path):
    unit = read(unit_path)
    loaded = {value.partition(":")[0] for value in unit["LoadCredential"]}
    read_by = dict(
        value.split("=%d/") for value in unit["Environment"] if "%d/" in value
    )  # variable to credential
    assert set(read_by.values()) == loaded
    assert set(read_by) <= {f"{name}_FILE" for name in SPECIALS}
    assert "DISPATCHER_DATABASE_URL_FILE" in read_by
    assert "DISPATCHER_SECRET_KEYS_FILE" in read_by


def test_the_template_differs_in_nothing_but_its_instance(deploy):
    single, template = (read(deploy / "systemd" / name) for name in UNITS)
    for key in single | template:
        ours = [value for value in template.get(key, []) if "%i" not in value]
        theirs = single.get(key, [])
        if len(template.get(key, [])) == len(theirs):
            assert all(a == b or "%i" in a for a, b in zip(template[key], theirs, strict=True)), key
        else:
            words = [*template[key], *template["ExecStart"][0].split()]
            set_by_instance = {word.partition("=")[0] for word in words if "%i" in word}
            assert ours == [
                value for value in theirs if value.partition("=")[0] not in set_by_instance
            ], key


def test_units_share_no_directory_that_they_write(unit_path):
    """Two units of one StateDirectory= cannot follow each other under DynamicUser=: exit 238."""
    unit = read(unit_path)
    assert not {"StateDirectory", "CacheDirectory", "LogsDirectory", "RuntimeDirectory"} & set(unit)
    assert unit["WorkingDirectory"] == ["/"]


def test_template_sets_what_an_environment_file_may_not_override(deploy):
    """Variables of EnvironmentFile= win over Environment=, and only the command wins over both."""
    unit = read(deploy / "systemd" / "dispatcher@.service")
    assert not [value for value in unit["Environment"] if "%i" in value]
    for name in ("HTTP__PORT", "HTTP__PROBE_PORT", "REPLICA__NAME"):
        assert re.search(rf"DISPATCHER_{name}=\S*%i", unit["ExecStart"][0])


def test_no_line_of_the_log_is_dropped_uncounted(unit_path):
    assert read(unit_path)["LogRateLimitIntervalSec"] == ["0"]


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A notify socket, and its path."""
    path = str(tmp_path / "notify.sock")
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as channel:
        channel.bind(path)
        channel.settimeout(60)
        yield path, channel


def credentials(folder: Path, url: str) -> dict[str, str]:
    """Lays out what LoadCredential= would, with the unit's names, and returns the unit's variables."""
    unit = read(Path(__file__).parents[2] / "deploy" / "systemd" / "dispatcher.service")
    contents = {
        "database-url": url,
        "secret-keys": "k1:" + "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=",
        "admin-token": "t" * 40,
    }
    folder.mkdir()
    variables = {}
    for value in unit["Environment"]:
        variable, _, path = value.partition("=")
        if not path.startswith("%d/"):
            continue
        name = path.removeprefix("%d/")
        (folder / name).write_text(contents[name] + "\n", encoding="utf-8")
        variables[variable] = str(folder / name)
    return variables


@pytest.mark.postgres
@pytest.mark.e2e
async def test_the_daemon_delivers_within_what_the_unit_grants(
    bench, sql, deploy, tmp_path, supervisor
):
    """Credentials as files, notify socket, watchdog, no gain of executable memory, only granted system calls.

    systemd itself is not asked: no test may rely on being run under it.
    """
    strace = need("strace", package="strace")
    analyze = need("systemd-analyze", package="systemd")
    if ctypes.CDLL(None).prctl(66, 0, 0, 0, 0) < 0:
        pytest.skip("this kernel has no PR_SET_MDWE (Linux 6.3 or later)")
    path, channel = supervisor
    calls = tmp_path / "calls"
    bench.receiver.behave(hook={"secret": STANDARD_SECRET})
    await add_endpoint(sql, "ep_x", bench.receiver.url("/hook"))
    daemon = bench.daemon(
        prefix=(sys.executable, "-c", UNDER_MDWE, strace, "-D", "-f", "-qq", "-o", str(calls)),
        process_environ={
            **credentials(tmp_path / "credentials", bench.url),
            "DISPATCHER_DATABASE_URL": "",
            "DISPATCHER_SECRET_KEYS": "",
            "NOTIFY_SOCKET": path,
            "WATCHDOG_USEC": "3000000",
        },
    )
    heard = [channel.recv(1024).decode() for _ in range(2)]
    await daemon.started(30)
    while not {"READY=1", "WATCHDOG=1"} <= set(heard):
        heard.append(channel.recv(1024).decode())
    await bench.produced(Plan(url=bench.url, events_count=3))
    await quiet(bench.url, seconds=15)
    assert bench.receiver.count("answer", "/hook") == 3
    daemon.kill(signal.SIGTERM)
    assert await daemon.ended(20) == 0
    while heard[-1] != "STOPPING=1":
        heard.append(channel.recv(1024).decode())

    used = set(re.findall(r"^\d+ +([a-z_0-9]+)\(", calls.read_text(errors="replace"), re.MULTILINE))
    granted = _granted(analyze, read(deploy / "systemd" / "dispatcher.service"))
    assert {"epoll_wait", "sendto", "connect"} & used
    assert used - granted == set()


def _granted(analyze: str, unit: Unit) -> set[str]:
    """Returns the system calls that the unit's filters leave."""
    granted: set[str] = set()
    for value in unit["SystemCallFilter"]:
        for name in value.removeprefix("~").split():
            calls = _expand(analyze, name)
            granted = granted - calls if value.startswith("~") else granted | calls
    return granted


def _expand(analyze: str, name: str) -> set[str]:
    if not name.startswith("@"):
        return {name}
    lines = subprocess.run(
        [analyze, "syscall-filter", "--no-pager", name], check=True, capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], "SYSTEMD_COLORS": "0"},
    ).stdout.splitlines()[1:]  # fmt: skip
    found: set[str] = set()
    for line in (line.strip() for line in lines):
        if line and not line.startswith("#"):
            found |= _expand(analyze, line)
    return found
