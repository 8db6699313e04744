"""The unit tier: no Postgres, no process, no network. A test that uses one of them fails here."""

import asyncio
import sys
from collections.abc import Generator, Mapping
from typing import Any, Final

import pytest

FORBIDDEN: Final = frozenset(
    {
        "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "pty.spawn",
        "socket.bind", "socket.connect", "socket.getaddrinfo", "socket.sendto", "subprocess.Popen",
    }
)  # fmt: skip
"""Audit events of the interpreter. An event loop's own pair of sockets causes none of them."""
_FIXTURES: Final = frozenset({"cluster", "bench", "make_bench"})
_MARKS: Final = frozenset({"postgres", "e2e"})

_used: list[str] | None = None
"""The forbidden events of the running test; None outside of one."""


class UnitTierError(BaseException):
    """Not an `Exception`, so that no code under test handles it."""


def _audit(event: str, _arguments: tuple[Any, ...]) -> None:
    if event in FORBIDDEN and _used is not None:
        _used.append(event)
        raise UnitTierError(f"{event} in the unit tier; tests/README.md lists the other tiers")


sys.addaudithook(_audit)


def pytest_asyncio_loop_factories() -> Mapping[str, Any]:
    """Run on asyncio's own loop: uvloop opens sockets past the interpreter's audit."""
    return {"asyncio": asyncio.new_event_loop}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail a test that asks for Postgres or a daemon before its fixtures start one."""
    asked = _FIXTURES & set(getattr(item, "fixturenames", ()))
    marks = _MARKS & {mark.name for mark in item.iter_markers()}
    if asked or marks:
        pytest.fail(f"{sorted(asked | marks)} in the unit tier; tests/README.md lists the others")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Fail a test that starts a process or opens a connection, even if the code handles the error."""
    del item
    global _used  # noqa: PLW0603 -- an audit hook has no other place to look
    _used = []
    try:
        yield
        used = _used
    finally:
        _used = None
    if used:
        pytest.fail(f"{used} in the unit tier; tests/README.md lists the other tiers")
