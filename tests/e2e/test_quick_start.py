"""The quick start works as it is written: its blocks run in order, on both databases, and are the same in Thai."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.test_dev import environment, running
from tests.support.cluster import Cluster, OwnedCluster
from tests.support.daemon import free_port
from tests.support.tools import need

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.postgres,
    pytest.mark.slow,
    pytest.mark.xdist_group("dev"),
]
CHECKOUT = Path(__file__).resolve().parents[2]
DOCS = CHECKOUT / "docs"
PAGE = "quick-start.md"


def blocks(page: str) -> list[str]:
    return re.findall(r"(?ms)^```\w+\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"))


class Reader:
    """A person who follows the page in a folder, with `./run` as its command."""

    def __init__(self, folder: Path, home: Path) -> None:
        folder.mkdir()
        run = folder / "run"
        run.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m dispatcher "$@"\n')
        run.chmod(0o755)
        self.folder = folder
        self.port = str(free_port())
        self.address = "127.0.0.1:5432/wms"
        self.environ = environment(
            home, PYTHONPATH=str(CHECKOUT), DISPATCHER_HTTP__PORT=str(free_port())
        )

    def types(self, block: str) -> str:
        """Runs a block with the receiver's port and Postgres's address replaced; returns its output."""
        block = block.replace("127.0.0.1:5432/wms", self.address)
        finished = subprocess.run(
            [need("bash"), "-euc", block.replace("9000", self.port)],
            cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert finished.returncode == 0, f"{block}\n{finished.stdout}{finished.stderr}"
        return finished.stdout

    def saves(self, name: str, block: str) -> None:
        (self.folder / name).write_text(block.replace("9000", self.port))

    def starts_daemon(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [need("bash"), "-euc", "source ./.env; exec ./run run"],
            cwd=self.folder, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def starts_receiver(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "receiver.py"],
            cwd=self.folder, env=self.environ, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip


def reads_secret(reader: Reader, create: str) -> None:
    """Types a block that creates the endpoint, and exports its secret for the receiver that the block starts."""
    assert create.endswith("\n.venv/bin/python receiver.py\n")
    create = create.removesuffix(".venv/bin/python receiver.py\n")
    reader.environ["SECRET"] = reader.types(f'{create}printf "\\n%s" "$SECRET"').splitlines()[-1]


def receives(receiver: "subprocess.Popen[str]", text: str) -> None:
    """Waits for the event; the time limit of the test bounds the wait."""
    assert receiver.stdout is not None
    assert any(line.startswith("received:") and text in line for line in receiver.stdout)


@pytest.mark.timeout(120)
def test_quick_start_delivers_to_the_readers_own_receiver(tmp_path: Path):
    _, receiver_text, create, publish, fail, retry, *_ = blocks(PAGE)
    with running(tmp_path / "home", "--no-samples") as dev:
        dev.until(r"^end ")
        reader = Reader(tmp_path / "dispatcher", tmp_path / "home")
        reader.saves("receiver.py", receiver_text)
        reads_secret(reader, create)
        first = reader.starts_receiver()
        try:
            assert "my-receiver" in reader.types(publish)
            receives(first, "ORD-2026-5001")
        finally:
            first.terminate()
            first.communicate()
        assert "my-receiver" in reader.types(fail)
        second = reader.starts_receiver()
        try:
            reader.types(retry)
            receives(second, "my-first-failure")
        finally:
            second.terminate()
            second.communicate()


def test_quick_start_in_thai_has_the_same_blocks():
    assert blocks("th/quick-start.md") == blocks(PAGE)


@pytest.mark.timeout(120)
def test_quick_start_delivers_from_the_readers_own_postgres(tmp_path: Path):
    _, receiver_text, *_, roles, install, create, publish = blocks(PAGE)
    assert install.endswith("\n./run run\n")
    cluster = OwnedCluster()
    cluster.start()
    try:
        assert cluster.socket_directory, cluster.error
        url = Cluster(cluster.socket_directory).dsn_for("postgres")
        psql = [need("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", url]
        subprocess.run(psql, input=roles, text=True, check=True)
        reader = Reader(tmp_path / "dispatcher", tmp_path / "home")
        reader.address = f"/wms?host={cluster.socket_directory}"
        reader.saves("receiver.py", receiver_text)
        printed = reader.types(install.removesuffix("./run run\n"))
        assert printed.startswith("no problems\n")
        with reader.starts_daemon() as daemon:
            assert daemon.stdout is not None
            assert any("daemon.started" in line for line in daemon.stdout)
            reads_secret(reader, create)
            with reader.starts_receiver() as receiver:
                try:
                    assert "evt_" in reader.types(publish)
                    receives(receiver, "ORD-2026-5002")
                finally:
                    receiver.terminate()
                    daemon.terminate()
    finally:
        cluster.stop()
