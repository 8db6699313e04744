"""`dispatcher dev` as a process: samples delivered and retried, found by other commands, drained at Ctrl-C."""

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from tests.support.pace import in_time

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.postgres,
    pytest.mark.slow,
    pytest.mark.xdist_group("dev"),
]


def environment(home: Path, **more: str) -> dict[str, str]:
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("DISPATCHER_") or name == "DISPATCHER_PG_BIN"
    }
    return {**clean, "DISPATCHER_HOME": str(home), "PYTHONUNBUFFERED": "1", **more}


def command(home: Path, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "dispatcher", *arguments],
        env=environment(home, **more),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


class Dev:
    """A running `dispatcher dev` and what it has said."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.lines: list[str] = []

    def until(self, pattern: str) -> str:
        """Reads on until a line matches; the time limit of the test bounds the wait."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if re.search(pattern, line):
                return line
        raise AssertionError(f"{pattern} was not said:\n{''.join(self.lines)}")

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        rest, _ = self.process.communicate(timeout=45)
        self.lines.append(rest)
        return self.process.returncode


@contextmanager
def running(home: Path, *arguments: str, command: str = "dev", **more: str) -> Iterator[Dev]:
    process = subprocess.Popen(
        [sys.executable, "-m", "dispatcher", command, *arguments],
        env=environment(home, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield Dev(process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=45)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
        if process.stdout is not None:
            process.stdout.close()


@pytest.mark.timeout(120)
def test_everything_runs_on_one_machine(tmp_path: Path):
    with running(tmp_path) as dev:
        dev.until(r"^end ")
        began = time.monotonic()
        dev.until(r"^sample-\w+: delivered [1-9]")
        assert in_time(time.monotonic() - began, 5.0), (
            "the first delivery is there within five seconds"
        )
        dev.until(r"^sample-flaky: .*retrying [1-9]")

        found = orjson.loads((tmp_path / "dev.json").read_bytes())
        assert set(found) == {
            "database_url",
            "console_url",
            "admin_token",
            "receiver_urls",
            "ca_file",
        }
        assert stat.S_IMODE((tmp_path / "dev.json").stat().st_mode) == 0o600
        assert command(tmp_path, "dev").returncode == 1, "a second one does not start"
        assert command(tmp_path, "check").returncode == 0

        listed = orjson.loads(command(tmp_path, "endpoint", "list", "--json").stdout)["items"]
        profiles = {one["name"]: (one["profile"], one["url"].split(":")[0]) for one in listed}
        assert profiles == {
            "sample-wms": ("wms", "http"),
            "sample-humansoft": ("humansoft", "https"),
            "sample-standard": ("standard", "http"),
            "sample-flaky": ("standard", "http"),
        }
        for one in listed:
            tried = command(tmp_path, "endpoint", "test", one["id"], "--json")
            assert (one["name"], tried.returncode) in {(one["name"], 0), ("sample-flaky", 1)}, (
                tried.stderr
            )

        dev.until(r"^sample-flaky: delivered [1-9]")
        delivered = orjson.loads(
            command(tmp_path, "delivery", "list", "--state", "succeeded", "--json").stdout
        )
        real = next(one["id"] for one in delivered["items"] if not one["test"])
        shown = command(tmp_path, "delivery", "show", real, "--json")
        assert orjson.loads(shown.stdout)["attempts"][-1]["outcome"] == "ok"
        assert command(tmp_path, "delivery", "resend", real).returncode == 0
        assert dev.interrupt() == 0, dev.lines
    assert "drained" in dev.lines[-1]
    assert "did not verify" not in dev.lines[-1]
    assert not (tmp_path / "dev.json").exists()
    assert command(tmp_path, "endpoint", "list").returncode == 2, "nothing is found once it is gone"

    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen(1)
        port = busy.getsockname()[1]
        with running(tmp_path, DISPATCHER_HTTP__PORT=str(port)) as again:
            again.until(rf"port {port} is busy: the listener goes to \d+")
            again.until(r"^end ")
            kept = orjson.loads(command(tmp_path, "endpoint", "list", "--json").stdout)["items"]
            assert {one["id"] for one in kept} == {one["id"] for one in listed}, (
                "samples are made once"
            )
            assert again.interrupt() == 0, again.lines


def test_a_schema_that_it_did_not_make_is_refused(tmp_path: Path, database: str):
    finished = command(tmp_path, "dev", "--seconds", "1", DISPATCHER_DATABASE_URL=database)
    assert finished.returncode == 2
    assert "did not make" in finished.stderr


def test_a_database_of_ones_own_is_used(tmp_path: Path, make_database: Callable[..., str]):
    url = make_database(migrated=False)
    for _ in range(2):
        finished = command(
            tmp_path, "dev", "--seconds", "2", "--no-samples", DISPATCHER_DATABASE_URL=url
        )
        assert finished.returncode == 0, finished.stderr
    assert not (tmp_path / "postgres").exists()


def test_two_that_start_at_once_take_different_ports(tmp_path: Path):
    """Seen: both found the same port free, and the second to bind ended with an error."""
    with (
        running(tmp_path / "a", "--no-samples") as one,
        running(tmp_path / "b", "--no-samples") as two,
    ):
        for dev in (one, two):
            dev.until(r"^end ")
        found = [orjson.loads((tmp_path / name / "dev.json").read_bytes()) for name in ("a", "b")]
        assert found[0]["console_url"] != found[1]["console_url"]
        assert not set(found[0]["receiver_urls"]) & set(found[1]["receiver_urls"])
        assert [dev.interrupt() for dev in (one, two)] == [0, 0]


@pytest.mark.timeout(120)
def test_demo_delivers_a_warehouse_through_three_receivers(tmp_path: Path):
    with running(tmp_path, "--rate", "40", "--seed", "3", command="demo") as dev:
        dev.until(r"^end ")
        for name in ("erp-accounting", "carrier-tracking", "marketplace-stock"):
            if not any(re.search(rf"^{name}: delivered [1-9]", line) for line in dev.lines):
                dev.until(rf"^{name}: delivered [1-9]")
        dev.until(r"^marketplace-stock: .*retrying [1-9]")
        found = orjson.loads(command(tmp_path, "event", "list", "--json", "--limit", "100").stdout)
        types = {one["type"] for one in found["items"]}
        assert {"order.created", "stock.changed", "shipment.shipped"} <= types
        assert dev.interrupt() == 0, dev.lines
    last = dev.lines[-1]
    committed, rolled_back = map(int, re.findall(r"(\d+) (?:events committed|rolled back)", last))
    assert committed > 50
    assert rolled_back > 0
    assert "did not verify" not in last
