"""Requests free their memory when they end, so that the collector of reference cycles has nothing to do.

The process collects rarely (`runtime/collector.py`). If each publish left a cycle, 100,000 objects would wait for the
collector, and freeing them would hold all deliveries up for a tenth of a second.
"""

import gc
from collections import Counter
from collections.abc import Iterator

import pytest
from aiohttp import web

from tests.admin.serving import Api

pytestmark = pytest.mark.postgres

REQUESTS = 20
EVENT = {"type": "order.created", "data": {"number": 1}}
INVALID = {"type": "", "data": {}}
KINDS = {
    "publish": ("POST", "/events", EVENT),
    "batch": ("POST", "/events", [EVENT, EVENT]),
    "invalid publish": ("POST", "/events", INVALID),
    "batch with an invalid event": ("POST", "/events", [EVENT, INVALID]),
    "page of deliveries": ("GET", "/deliveries", None),
    "page of events": ("GET", "/events", None),
    "page of endpoints": ("GET", "/endpoints", None),
    "no such delivery": ("GET", "/deliveries/dlv_1", None),
    "no such route": ("GET", "/nothing", None),
    "no such method": ("DELETE", "/events", None),
    "OpenAPI": ("GET", "//openapi.json", None),
    "no such page": ("GET", "//nothing", None),
    "no such method of a page": ("PUT", "//sign-in", {}),
    "metrics": ("GET", "//metrics", None),
    "livez": ("GET", "//livez", None),
}


@pytest.fixture
def garbage() -> Iterator[list[object]]:
    """What only the collector finds; it does not run before the test asks it to."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield gc.garbage
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_request_leaves_no_cycle(api: Api, kind: str, garbage: list[object]) -> None:
    method, path, fields = KINDS[kind]
    for _ in range(REQUESTS):
        await api.ask(method, path, fields)
    gc.collect()
    found = Counter(type(one).__qualname__ for one in garbage if isinstance(one, web.BaseRequest))
    assert not found, Counter(type(one).__qualname__ for one in garbage).most_common(20)


async def test_cycles_would_be_found(garbage: list[object]) -> None:
    """The control."""
    cycle: list[object] = []
    cycle.append(cycle)
    number = id(cycle)
    del cycle
    gc.collect()
    assert number in map(id, garbage)
