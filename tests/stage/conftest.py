"""Both event loops for the modules that touch sockets, and what their tests share."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from dispatcher.core.addresses import AddressPolicy
from dispatcher.outbound.dialer import Egress
from dispatcher.outbound.pool import Connections
from dispatcher.outbound.resolver import AresLookup, Resolver
from tests.support.certificates import Authority
from tests.support.sending import Sender, spawn

_ON_BOTH_LOOPS = ("test_exchange", "test_egress")


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.path.name.startswith(_ON_BOTH_LOOPS):
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def policy() -> AddressPolicy:
    """Loopback is where the tests' receivers are."""
    return AddressPolicy.parse(
        allow_networks=["127.0.0.1/32", "::1/128"], allow_ports=["1024-65535"]
    )


@pytest.fixture
async def sender(policy: AddressPolicy) -> AsyncIterator[Sender]:
    """A pool that leaves nothing behind: no connection, no descriptor, no task."""
    resolver = Resolver(AresLookup(["127.0.0.1:9"]), spawn=spawn, monotonic=time.monotonic)
    egress = Egress(policy, resolver)
    pool = Connections(egress, spawn=spawn)
    yield Sender(egress, pool)
    await pool.aclose()
    assert len(pool._open) == 0
    assert len(pool._in_flight) == 0
    await egress.aclose()
