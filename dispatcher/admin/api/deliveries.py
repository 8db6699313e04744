"""Deliveries over HTTP: list, export, show with attempts, resend, cancel, diagnose the signature."""

from dispatcher.admin.api.route import ApiFile, ApiResponse, Call
from dispatcher.admin.operations.export_files import MEDIA_TYPES, export_text, file_name
from dispatcher.admin.resources.delivery import DeliveriesQuery, ExportQuery
from dispatcher.admin.resources.signature_diagnosis import CapturedRequest


async def list_deliveries(call: Call, query: DeliveriesQuery) -> ApiResponse:
    """List deliveries, newest first, without their attempts."""
    return ApiResponse(await call.operations.deliveries.page(call.actor, query))


async def export_deliveries(call: Call, query: ExportQuery) -> ApiFile:
    """Export deliveries as a file, newest first.

    Each row has the delivery and its last attempt without bodies. A file has the newest 10,000 at most. If more match,
    `is_complete` is `false` in JSON, and the last row of CSV is a note. In CSV, a value that a spreadsheet could take
    for a formula begins with an apostrophe.
    """
    operations = call.operations
    parts = export_text(operations.deliveries, operations.endpoints, call.actor, query)
    name = file_name(query, operations.deployment.clock.now())
    return ApiFile(parts, name, MEDIA_TYPES[query.format])


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
