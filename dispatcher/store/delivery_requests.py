"""The table `delivery_request`: requests of people, for a resend or a cancellation.

Each takes the connection of the caller's transaction, at whose commit the dispatchers are notified.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dispatcher.store.day_walk import PLAN_FOR_VALUES
from dispatcher.store.deliveries import RetryRequest
from dispatcher.store.delivery_ids import uuid_of, uuids_of
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from dispatcher.store.delivery_details import DeliveryDetail
    from dispatcher.store.pool import Reach

_CONTROL_NOTIFY = statement("delivery_request_notify")
_DELIVERY_RESEND = statement("delivery_resend")
_DELIVERIES_RESENDABLE = statement("delivery_count_resendable")
_DELIVERIES_RESEND = statement("delivery_resend_many")
_DELIVERY_CANCEL = statement("delivery_cancel")
_ENDPOINT_RETRY = statement("endpoint_request_retry")


async def notify_dispatchers(connection: "Reach") -> None:
    """Notify the dispatchers of people's requests, once the transaction has committed."""
    await connection.execute(_CONTROL_NOTIFY)


async def request_resend(connection: "Reach", delivery: "DeliveryDetail", actor: str) -> bool:
    """Request one more attempt; return whether the endpoint still exists."""
    asked = await connection.fetchval(
        _DELIVERY_RESEND,
        uuid_of(delivery.id),
        delivery.day,
        delivery.endpoint_id,
        actor,
        delivery.event_id,
    )
    await notify_dispatchers(connection)
    return asked is not None


async def count_resendable(connection: "Reach", deliveries: "Sequence[DeliveryDetail]") -> int:
    """Return how many of the deliveries still have their endpoint and body."""
    await connection.execute(PLAN_FOR_VALUES)
    count = await connection.fetchval(
        _DELIVERIES_RESENDABLE,
        [row.day for row in deliveries],
        [row.endpoint_id for row in deliveries],
        [row.event_id for row in deliveries],
        [row.profile for row in deliveries],
    )
    return int(count)


async def request_resends(
    connection: "Reach", deliveries: "Sequence[DeliveryDetail]", actor: str
) -> int:
    """Request one more attempt of each that still has its endpoint and body; return the count."""
    await connection.execute(PLAN_FOR_VALUES)
    asked = await connection.fetchval(
        _DELIVERIES_RESEND,
        uuids_of([row.id for row in deliveries]),
        [row.day for row in deliveries],
        [row.endpoint_id for row in deliveries],
        actor,
        [row.event_id for row in deliveries],
        [row.profile for row in deliveries],
    )
    await notify_dispatchers(connection)
    return int(asked)


async def request_retry(connection: "Reach", endpoint_id: str, actor: str) -> RetryRequest | None:
    """Request a retry of an endpoint; return the request, None if no delivery waits."""
    row = await connection.fetchrow(_ENDPOINT_RETRY, endpoint_id, actor)
    await notify_dispatchers(connection)
    return None if row is None else RetryRequest(*row)


async def cancel_delivery(connection: "Reach", delivery_id: str, actor: str) -> bool:
    """Cancel an open delivery; return whether it was open."""
    ended = await connection.fetchval(_DELIVERY_CANCEL, uuid_of(delivery_id), actor)
    await notify_dispatchers(connection)
    return ended is not None
