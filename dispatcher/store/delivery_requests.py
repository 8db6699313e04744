"""The table `delivery_request`: requests of people, for a resend or a cancellation.

Each takes the connection of the caller's transaction, at whose commit the dispatchers are notified.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dispatcher.store.deliveries import RetryRequest
from dispatcher.store.delivery_ids import uuid_of
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from dispatcher.store.delivery_details import DeliveryDetail
    from dispatcher.store.pool import Reach

_CONTROL_NOTIFY = statement("delivery_request_notify")
_DELIVERY_RESEND = statement("delivery_resend")
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


async def request_retry(
    connection: "Reach", endpoint_id: str, actor: str, failed_types: Sequence[int] = ()
) -> RetryRequest | None:
    """Request a retry of an endpoint; return the request, None if no delivery of another type waits."""
    row = await connection.fetchrow(_ENDPOINT_RETRY, endpoint_id, actor, list(failed_types))
    await notify_dispatchers(connection)
    return None if row is None else RetryRequest(*row)


async def cancel_delivery(connection: "Reach", delivery_id: str, actor: str) -> bool:
    """Cancel an open delivery; return whether it was open."""
    ended = await connection.fetchval(_DELIVERY_CANCEL, uuid_of(delivery_id), actor)
    await notify_dispatchers(connection)
    return ended is not None
