"""What the supervisor hears, on a socket of our own in its place."""

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dispatcher.runtime.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def supervisor(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[socket.socket, str]]:
    name = (
        str(tmp_path / "notify") if request.param == "path" else f"@dispatcher-test-{os.getpid()}"
    )
    if request.param == "abstract" and not Path("/proc").exists():
        pytest.skip("abstract sockets are Linux's alone")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(name.replace("@", "\0", 1) if name[0] == "@" else name)
        channel.settimeout(5)
        yield channel, name


def test_each_message_arrives_as_it_should(supervisor: tuple[socket.socket, str]):
    channel, name = supervisor
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": name})
    calls: dict[str, Callable[[], bool]] = {
        "READY=1": notifier.ready,
        "STOPPING=1": notifier.stopping,
        "WATCHDOG=1": notifier.watchdog,
    }
    for expected, call in calls.items():
        assert call() is True
        assert channel.recv(1_000).decode() == expected


def test_reloading_carries_the_monotonic_clock(supervisor: tuple[socket.socket, str]):
    channel, name = supervisor
    before = time.monotonic_ns() // 1000
    Notifier.from_environment({"NOTIFY_SOCKET": name}).reloading()
    match = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", channel.recv(1_000).decode())
    assert match is not None
    assert before <= int(match[1]) <= time.monotonic_ns() // 1000


@pytest.mark.parametrize("address", [None, "", "relative", "vsock:1:2"])
def test_without_a_supervisor_nothing_happens(address: str | None):
    environ = {} if address is None else {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"}
    notifier = Notifier.from_environment(environ)
    assert notifier.ready() is False
    assert notifier.watchdog_seconds is None


def test_a_supervisor_that_is_gone_raises_nothing(tmp_path: Path):
    assert Notifier.from_environment({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready() is False


def test_a_supervisor_that_does_not_read_blocks_nothing(tmp_path: Path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        notifier = Notifier.from_environment({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        answers = [notifier.watchdog() for _ in range(10_000)]
    assert answers[0] is True
    assert answers[-1] is False


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "٣"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_ours_only_if_it_is_meant_for_us(
    variables: dict[str, str], seconds: float | None
):
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": "/run/x", **variables})
    assert notifier.watchdog_seconds == seconds
