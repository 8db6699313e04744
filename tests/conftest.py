"""Fixtures of every test: the event loop, the throw-away database, and the hunt for leaks."""

import asyncio
import contextlib
import gc
import inspect
import itertools
import os
import re
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aioresponses.core
import hypothesis
import pytest
import pytest_asyncio
import structlog
import uvloop
from _pytest.nodeid import NodeId
from aiohttp import ClientResponse

from tests.support import planned
from tests.support.cluster import Cluster, Emptier, OwnedCluster, worker_name
from tests.support.figures import pytest_terminal_summary

__all__ = ["pytest_terminal_summary"]

LEAK_ROUNDS = 50
LINGERING_SECONDS_MAX = 4.0
"""The server discards the rest of a refused body for up to 2 s before it finds that its client is gone."""
_counter = itertools.count()
_owned = pytest.StashKey[OwnedCluster]()

gc.disable()  # What is imported and collected stays: `pytest_collection_finish` freezes it.

# Examples are the same in every run: a red test must be red for the next reader as well. Hypothesis is two thirds of
# the unit tier's time: that tier alone takes few, the whole suite (CI) more, and `--long` plays 2,000 new ones.
for _name, _examples in (("unit", 5), ("short", 20)):
    hypothesis.settings.register_profile(
        _name, max_examples=_examples, deadline=None, derandomize=True, database=None
    )
hypothesis.settings.register_profile("long", max_examples=2_000, deadline=None, database=None)


class _MissingStream:
    """Stands for the stream writer that aioresponses does not know of."""

    output_size = 0


if "stream_writer" in inspect.signature(ClientResponse.__init__).parameters:

    class _PatientResponse(ClientResponse):
        """aiohttp's response for aioresponses 0.7.9, which leaves a parameter of 3.14 out."""

        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            keywords.setdefault("stream_writer", _MissingStream())
            super().__init__(*arguments, **keywords)

    setattr(aioresponses.core, "ClientResponse", _PatientResponse)  # noqa: B010 -- not exported there


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long", action="store_true", help="the long forms of tests: the sizes of the fault matrix"
    )


def pytest_configure(config: pytest.Config) -> None:
    for name in [name for name in os.environ if name.startswith("DISPATCHER_")]:
        if name != "DISPATCHER_PG_BIN":
            del os.environ[name]  # A developer's own settings must not steer a test.
    short = "unit" if _is_unit_tier(config) else "short"
    hypothesis.settings.load_profile("long" if config.getoption("--long") else short)
    # Lines of code under test go nowhere, unless a test configures the log itself.
    structlog.configure(processors=[_drop], cache_logger_on_first_use=False)
    spread = getattr(config.option, "numprocesses", None) or getattr(config.option, "tx", None)
    if spread and not hasattr(config, "workerinput") and _may_need_postgres(config):
        _start_owned(config)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give tests that share a module's set-up to one worker, and so long forms that may not run side by side."""
    for item in items:
        if config.getoption("--long") and item.get_closest_marker("alone"):
            item.add_marker(pytest.mark.xdist_group("alone"))
        elif not item.get_closest_marker("xdist_group") and _has_set_up_of_its_module(item):
            item.add_marker(pytest.mark.xdist_group(f"{item.path.parent.name}_{item.path.stem}"))
        group = item.get_closest_marker("xdist_group")
        if group is not None and hasattr(config, "workerinput"):
            # xdist 3.8.0 sets `_nodeid`, which pytest 9.2 does not read: without this, no group has an effect.
            item._id = NodeId.parse(f"{item.nodeid}@{group.args[0]}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remove the group from a test's name, or `--last-failed` does not find the test."""
    if "PYTEST_XDIST_WORKER" not in os.environ:  # a worker compares the name with the test's
        report.nodeid = re.sub(r"@\w+$", "", report.nodeid)


def pytest_collection_finish() -> None:
    """Keep the garbage collector off the tests themselves, which takes a fifth of the unit tier's time."""
    gc.freeze()
    gc.enable()


def _has_set_up_of_its_module(item: pytest.Item) -> bool:
    info = getattr(item, "_fixtureinfo", None)
    definitions = [known[-1] for known in info.name2fixturedefs.values()] if info else []
    return any(one.scope == "module" and one.baseid.startswith("tests/") for one in definitions)


def _drop(_logger: object, _method: str, _event: object) -> str:
    raise structlog.DropEvent


def _may_need_postgres(config: pytest.Config) -> bool:
    left_out = "not postgres" in (config.option.markexpr or "")
    return not (_is_unit_tier(config) or left_out or config.option.collectonly)


def _is_unit_tier(config: pytest.Config) -> bool:
    return all(one.startswith("tests/unit") for one in config.args)


def _start_owned(config: pytest.Config) -> OwnedCluster:
    owned = OwnedCluster()
    config.stash[_owned] = owned
    owned.start()
    return owned


def pytest_unconfigure(config: pytest.Config) -> None:
    owned = config.stash.get(_owned, None)
    if owned is not None:
        owned.stop()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tells an xdist worker where the cluster is, or why there is none."""
    owned = node.config.stash.get(_owned, None)
    node.workerinput["cluster_socket"] = owned.socket_directory if owned is not None else None
    node.workerinput["cluster_error"] = owned.error if owned is not None else None


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """Runs every async test on uvloop, as the daemon runs."""
    del config, item
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def long_run(request: pytest.FixtureRequest) -> bool:
    """Whether the long form of a test was asked for (`./run test --long`)."""
    return bool(request.config.getoption("--long"))


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The run's Postgres."""
    given = getattr(request.config, "workerinput", None)
    if given is None:
        owned = request.config.stash.get(_owned, None) or _start_owned(request.config)
        socket_directory, error = owned.socket_directory, owned.error
    else:
        socket_directory, error = given["cluster_socket"], given["cluster_error"]
    if socket_directory is None:
        pytest.fail(error or "the tests were selected so that no cluster was started")
    known = Cluster(socket_directory)
    with pytest.MonkeyPatch.context() as patch:
        planned.install(patch)
        yield known
    known.close()


@pytest.fixture(scope="session")
def worker_database(cluster: Cluster) -> str:
    """The name of this worker's clone of the migrated template; ask for `database` instead."""
    name = f"worker_{worker_name()}"
    cluster.clone(name)
    cluster.empty(name)  # connects, before a test's hunt for leaks counts the sockets
    return name


@pytest.fixture
def database(cluster: Cluster, worker_database: str) -> str:
    """The URL of a migrated database that holds what the migrations left, and nothing else."""
    cluster.empty(worker_database)
    return cluster.dsn_for(worker_database)


@pytest.fixture
def make_database(cluster: Cluster) -> Iterator[Callable[..., str]]:
    """Makes databases of the test's own, for DDL; `migrated=False` gives an empty one."""
    names = []

    def make(*, migrated: bool = True) -> str:
        name = f"own_{worker_name()}_{next(_counter)}"
        names.append(name)
        return cluster.clone(name) if migrated else cluster.create(name)

    yield make
    for name in names:
        cluster.drop(name)


@pytest.fixture
def fresh_database(make_database: Callable[..., str]) -> str:
    """The URL of a migrated database of the test's own."""
    return make_database()


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> None:
    """Fails an async test that leaves a task or a socket behind."""
    if pytest_asyncio.is_async_test(request.node):
        request.getfixturevalue("_leak_hunt")


@pytest.fixture
async def _leak_hunt() -> AsyncIterator[None]:
    # Set up before all other fixtures of the test, so it looks after all of them are torn down.
    tasks_before = asyncio.all_tasks()
    sockets_before = _sockets()
    yield
    left = _left(tasks_before, sockets_before)
    began_at = time.monotonic()
    rounds = itertools.count()
    while next(rounds) < LEAK_ROUNDS or (
        all(one.startswith("task") for one in left)
        and time.monotonic() - began_at < LINGERING_SECONDS_MAX
    ):
        if not left:
            return
        # A transport closes on the next turns of the loop; only what stays is a leak.
        await asyncio.sleep(0.01)
        gc.collect()
        left = _left(tasks_before, sockets_before)
    if left:
        pytest.fail("left behind: " + "; ".join(left))


def _left(tasks_before: set[asyncio.Task[Any]], sockets_before: set[str]) -> list[str]:
    own = asyncio.current_task()
    tasks = {task for task in asyncio.all_tasks() - tasks_before if task is not own}
    return [
        *sorted(f"task {task.get_coro()}" for task in tasks if not task.done()),
        *sorted(f"socket {name}" for name in _sockets() - sockets_before),
    ]


def _sockets() -> set[str]:
    """Returns each open socket by descriptor, kernel's number and address; on Linux only."""
    if sys.platform != "linux":
        return set()
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        if entry.name in Emptier.descriptors:
            continue
        with contextlib.suppress(OSError):
            target = str(entry.readlink())
            if target.startswith("socket:"):
                with socket.socket(fileno=os.dup(int(entry.name))) as copy:
                    if not _is_pair(copy):
                        found.add(f"{entry.name} {target} {copy.getsockname()}")
    return found


def _is_pair(one: socket.socket) -> bool:
    """Tells a socket pair: uvloop makes a new one for its signals each time it runs."""
    if one.family != socket.AF_UNIX or one.getsockname():
        return False
    try:
        return not one.getpeername()
    except OSError:
        return False


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The top of the repository."""
    return Path(__file__).resolve().parent.parent
