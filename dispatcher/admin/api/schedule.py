"""The schedule over HTTP: waiting deliveries by due time, made due, postponed or cancelled by filter."""

from dispatcher.admin.api.route import ApiResponse, Call
from dispatcher.admin.operations.schedule import Change
from dispatcher.admin.resources.schedule import Postponement, ScheduleChange, ScheduleQuery


async def list_schedule(call: Call, query: ScheduleQuery) -> ApiResponse:
    """List waiting deliveries by due time, with the number of the next attempt and why each waits."""
    return ApiResponse(await call.operations.schedule.page(call.actor, query))


async def retry_scheduled(call: Call, fields: ScheduleChange) -> ApiResponse:
    """Make the waiting deliveries of a filter due now.

    Each gets its next scheduled attempt as soon as the endpoint's breaker, rate and concurrency permit. To
    send deliveries behind an open breaker, retry the endpoint. `count` has those that were not due yet.
    """
    return await _changed(call, Change.RETRY, fields)


async def postpone_scheduled(call: Call, fields: Postponement) -> ApiResponse:
    """Postpone the waiting deliveries of a filter, by a duration or until a time.

    A postponement never makes a delivery due earlier. A delivery in flight is not stopped.
    """
    return ApiResponse(
        await call.operations.schedule.change(
            call.actor,
            Change.POSTPONE,
            fields.filter,
            dry_run=fields.dry_run,
            by_seconds=fields.by_seconds,
            due_at=fields.due_at,
        )
    )


async def cancel_scheduled(call: Call, fields: ScheduleChange) -> ApiResponse:
    """Cancel the waiting deliveries of a filter; they can be resent later."""
    return await _changed(call, Change.CANCEL, fields)


async def _changed(call: Call, change: Change, fields: ScheduleChange) -> ApiResponse:
    return ApiResponse(
        await call.operations.schedule.change(
            call.actor, change, fields.filter, dry_run=fields.dry_run
        )
    )
