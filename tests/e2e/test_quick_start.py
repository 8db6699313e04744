"""The quick start works as it is written: its blocks run in order, with its receiver, on both databases."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.test_dev import environment, running
from tests.support.daemon import free_port
from tests.support.tools import need

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.postgres,
    pytest.mark.slow,
    pytest.mark.xdist_group("dev"),
]
CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = CHECKOUT / "docs" / "quick-start.md"


def blocks() -> list[str]:
    return re.findall(r"(?ms)^```\w+\n(.*?)^```$", PAGE.read_text(encoding="utf-8"))


class Reader:
    """A person who follows the page in a folder, with `./run` as its command."""

    def __init__(self, folder: Path, home: Path) -> None:
        folder.mkdir()
        run = folder / "run"
        run.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m dispatcher "$@"\n')
        run.chmod(0o755)
        self.folder = folder
        self.port = str(free_port())
        self.environ = environment(home, PYTHONPATH=str(CHECKOUT))

    def types(self, block: str) -> str:
        """Runs a block with the receiver's port replaced; returns what it printed."""
        finished = subprocess.run(
            [need("bash"), "-euc", block.replace("9000", self.port)],
            cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert finished.returncode == 0, f"{block}\n{finished.stdout}{finished.stderr}"
        return finished.stdout

    def saves(self, name: str, block: str) -> None:
        (self.folder / name).write_text(block.replace("9000", self.port))

    def starts_receiver(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "receiver.py"],
            cwd=self.folder, env=self.environ, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip


def receives(receiver: "subprocess.Popen[str]", text: str) -> None:
    """Waits for the event; the time limit of the test bounds the wait."""
    assert receiver.stdout is not None
    assert any(line.startswith("received:") and text in line for line in receiver.stdout)


@pytest.mark.timeout(120)
def test_quick_start_delivers_to_the_readers_own_receiver(tmp_path: Path):
    _, receiver_text, create, publish, fail, retry, *_ = blocks()
    with running(tmp_path / "home", "--no-samples") as dev:
        dev.until(r"^end ")
        reader = Reader(tmp_path / "dispatcher", tmp_path / "home")
        reader.saves("receiver.py", receiver_text)
        assert create.endswith("\npython3 receiver.py\n")
        create = create.removesuffix("python3 receiver.py\n")
        reader.environ["SECRET"] = reader.types(
            f'{create}printf "%s" "$SECRET" > secret; cat secret'
        ).splitlines()[-1]
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
