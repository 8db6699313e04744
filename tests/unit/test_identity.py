"""A mark proves that a process has ended, and proves nothing of one that may live."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dispatcher.runtime import identity

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/ns/time").exists(), reason="this system says too little of its processes"
)

_CHILD = """
from dispatcher.runtime import identity
print(identity.mark(), flush=True)
input()
"""


@pytest.fixture
def child(checkout: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A living process and its mark."""
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD],
        cwd=checkout,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.kill()


def test_a_process_that_was_killed_is_gone_and_before_that_it_was_not(child):
    process, mark = child
    assert not identity.is_gone(mark)
    process.kill()
    process.wait()
    assert identity.is_gone(mark)


def test_a_frozen_process_is_not_gone(child):
    process, mark = child
    process.send_signal(signal.SIGSTOP)
    assert not identity.is_gone(mark)


def test_identity_reused_process_id_does_not_hide_the_end():
    host, process_id, started = identity.mark().split(".")
    assert not identity.is_gone(identity.mark())
    assert identity.is_gone(f"{host}.{process_id}.{int(started) - 1}")


@pytest.mark.parametrize("change", ["another host", "nothing", "no mark", "a sign", "too long"])
def test_what_is_no_mark_of_this_host_proves_nothing(child, change):
    process, mark = child
    process.kill()
    process.wait()
    other = {
        "another host": "0" * 16 + mark[16:],
        "nothing": "",
        "no mark": "one-0123456789abcdef",
        "a sign": mark.replace(".", ".-", 1),
        "too long": mark + "0" * 30,
    }[change]
    assert not identity.is_gone(other)


def test_a_process_of_somebody_else_is_not_gone(monkeypatch):
    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert not identity.is_gone(identity.mark())
