"""The state of the deployment over HTTP."""

from dispatcher.admin.api.route import ApiResponse, Call


async def show_system(call: Call) -> ApiResponse:
    """Show replicas, open breakers, the outbox, the index of payload text and the database.

    Figures, tables, partitions and the database are shown only to a token of all tenants.
    """
    return ApiResponse(await call.operations.system.show(call.actor))
