"""Deliveries over HTTP: list, show with attempts, resend, cancel."""

from dispatcher.admin.api.route import ApiResponse, Call
from dispatcher.admin.resources.delivery import DeliveriesQuery


async def list_deliveries(call: Call, query: DeliveriesQuery) -> ApiResponse:
    """List deliveries, newest first, without their attempts."""
    return ApiResponse(await call.operations.deliveries.page(call.actor, query))


async def show_delivery(call: Call) -> ApiResponse:
    """Show a delivery with its attempts."""
    return ApiResponse(await call.operations.deliveries.show(call.actor, call.id))


async def resend_delivery(call: Call) -> ApiResponse:
    """Ask for one more attempt of a delivery.

    A success makes it succeeded; a failure changes nothing and starts no schedule. One that waits is
    sent now and keeps its place in the schedule.
    """
    return ApiResponse(await call.operations.deliveries.resend(call.actor, call.id))


async def cancel_delivery(call: Call) -> ApiResponse:
    """End a delivery that waits; it can be resent later."""
    return ApiResponse(await call.operations.deliveries.cancel(call.actor, call.id))
