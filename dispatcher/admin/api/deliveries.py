"""Deliveries over HTTP: list, show with attempts, resend, cancel, diagnose the signature."""

from dispatcher.admin.api.route import ApiResponse, Call
from dispatcher.admin.resources.delivery import DeliveriesQuery
from dispatcher.admin.resources.signature_diagnosis import CapturedRequest


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


async def diagnose_signature(call: Call, fields: CapturedRequest) -> ApiResponse:
    """Explain why a receiver rejects the signature of a delivery.

    Give the secret that the receiver uses, and the headers and the body as it received them, if you have them. The
    secret is neither stored nor logged. The result is one finding with a stable code, for example
    `previous_secret`, `secret_in_quotes` or `body_reserialised`.
    """
    return ApiResponse(
        await call.operations.signature_diagnosis.diagnose(call.actor, call.id, fields)
    )
