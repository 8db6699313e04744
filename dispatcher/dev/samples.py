"""The samples of `dispatcher dev` (an endpoint per source format, one that fails at first, events) and of `demo`.

Samples are created once. Existing ones are kept, and only their URLs are set to this run's receivers.
"""

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from dispatcher.admin.operations.context import Actor, Deployment
from dispatcher.admin.operations.endpoints import Endpoints
from dispatcher.admin.operations.events import Events
from dispatcher.admin.operations.new_event import NewEvent
from dispatcher.admin.operations.rotation import Rotation
from dispatcher.admin.resources.endpoint_requests import EndpointsQuery
from dispatcher.core.errors import StoreUnavailableError
from dispatcher.dev.receiver import Behaviour, ReceiverRoute

TENANT: Final = "default"
FAILURES_AT_FIRST: Final = 6
SECONDS_BETWEEN_EVENTS: Final = 1.0
EVENTS_AT_ONCE: Final = 4
EVENTS_MAX: Final = 120


class Sample(NamedTuple):
    """A sample endpoint."""

    name: str
    profile: str
    scheme: str
    path: str
    event_types: tuple[str, ...]
    fail_first: int = 0
    retry_schedule_seconds: tuple[float, ...] | None = None
    fail_rate: float = 0.0
    delay_seconds: float = 0.0
    authorization: str | None = None
    """The value of the header that the receiver requires."""


SAMPLES: Final = (
    Sample("sample-wms", "wms", "http", "/wms", ("order.*", "stock.*", "shipment.*")),
    Sample("sample-humansoft", "humansoft", "https", "/humansoft", ("employee.*",)),
    Sample("sample-standard", "standard", "http", "/standard", ("*",)),
    Sample(
        "sample-flaky",
        "standard",
        "http",
        "/flaky",
        ("order.created", "stock.changed", "employee.create"),
        fail_first=FAILURES_AT_FIRST,
        retry_schedule_seconds=(1.0, 1.0, 2.0, 3.0, 5.0, 8.0),
    ),
)
DEMO_SAMPLES: Final = (
    Sample(
        "erp-accounting",
        "wms",
        "https",
        "/erp/webhooks",
        ("order.*", "grn.*", "rma.*"),
        authorization="Bearer demo-token-of-the-erp",
    ),
    Sample(
        "carrier-tracking",
        "standard",
        "http",
        "/carrier/events",
        ("shipment.*", "order.shipped"),
        delay_seconds=0.8,
    ),
    Sample(
        "marketplace-stock",
        "standard",
        "http",
        "/marketplace/stock",
        ("stock.changed", "inventory.*", "order.created"),
        fail_rate=0.15,
        retry_schedule_seconds=(1.0, 2.0, 4.0, 8.0, 15.0, 30.0),
    ),
)
"""The receivers of `dispatcher demo`: one requires a token, one is slow, one is flaky."""
EVENT_TYPES: Final = (
    "order.created",
    "employee.create",
    "stock.changed",
    "shipment.shipped",
    "order.shipped",
    "employee.terminate",
    "shipment.delivered",
    "grn.confirmed",
)


async def ensure_endpoints(
    deployment: Deployment,
    actor: Actor,
    base_urls: Mapping[str, str],
    ca_pem: str,
    samples: Sequence[Sample] = SAMPLES,
) -> dict[str, ReceiverRoute]:
    """Create missing samples and point all of them to this run's receivers; return the expectations of each path.

    `base_urls` has the receivers' addresses by scheme.
    """
    endpoints = Endpoints(deployment)
    routes = {}
    for sample in samples:
        fields: dict[str, Any] = {
            "url": base_urls[sample.scheme] + sample.path,
            "ca_pem": ca_pem if sample.scheme == "https" else None,
        }
        found = (await endpoints.page(actor, EndpointsQuery(tenant=TENANT, name=sample.name))).items
        if found:
            endpoint_id = found[0].id
            change = await endpoints.read_change(actor, endpoint_id, fields)
            await endpoints.update(actor, endpoint_id, change)
            if found[0].state == "disabled":
                await endpoints.resume(actor, endpoint_id)
            secret = (await Rotation(deployment).reveal(actor, endpoint_id)).secret
        else:
            fields |= {
                "name": sample.name,
                "profile": sample.profile,
                "event_types": list(sample.event_types),
            }
            if sample.authorization is not None:
                fields["headers"] = {"Authorization": sample.authorization}
            if sample.retry_schedule_seconds is not None:
                fields["retry_schedule_seconds"] = list(sample.retry_schedule_seconds)
            new = endpoints.read_new(actor, {**fields, "tenant": TENANT})
            secret = (await endpoints.create(actor, new)).secret
        secrets: Sequence[str] = [] if secret is None else [secret]
        behaviour = Behaviour(
            fail_first=sample.fail_first,
            fail_rate=sample.fail_rate,
            delay_seconds=sample.delay_seconds,
        )
        routes[sample.path] = ReceiverRoute(
            profile=sample.profile,
            secrets=secrets,
            behaviour=behaviour,
            authorization=sample.authorization,
        )
    return routes


async def publish_events(deployment: Deployment, actor: Actor) -> None:
    """Publish sample events: some at once, then one per second for two minutes."""
    events = Events(deployment)
    types = [name for name in EVENT_TYPES if name in deployment.catalogue.types]
    for number, name in zip(range(EVENTS_MAX), itertools.cycle(types), strict=False):
        if number >= EVENTS_AT_ONCE:
            await asyncio.sleep(SECONDS_BETWEEN_EVENTS)
        data = deployment.catalogue.types[name].sample
        event = NewEvent(type=name, data=data, labels={"sample": f"SAMPLE-{number + 1:03}"})
        try:
            await events.publish(actor, event)
        except StoreUnavailableError:
            continue  # The daemon logs it; the next event is tried a second later.
