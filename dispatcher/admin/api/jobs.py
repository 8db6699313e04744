"""Jobs over HTTP: create or count, list, show, pause, resume, cancel; and the recovery of an endpoint."""

from dispatcher.admin.api.route import ApiResponse, Call
from dispatcher.admin.resources.job import EndpointRecovery, JobsQuery, NewJob


async def list_jobs(call: Call, query: JobsQuery) -> ApiResponse:
    """List jobs, newest first."""
    return ApiResponse(await call.operations.jobs.page(call.actor, query))


async def create_job(call: Call, fields: NewJob) -> ApiResponse:
    """Resend or replay the deliveries of a filter.

    A resend makes one more attempt of each delivery. A replay starts the whole retry schedule of each delivery
    again, including those that were cancelled. With `to`, a replay sends the events to another endpoint, which
    gets those that it subscribes to. The id and the body of each delivery stay the same. `dry_run` only counts.
    """
    if fields.dry_run:
        return ApiResponse(await call.operations.jobs.count(call.actor, fields), 200)
    return ApiResponse(await call.operations.jobs.create(call.actor, fields))


async def show_job(call: Call) -> ApiResponse:
    """Show a job with its progress."""
    return ApiResponse(await call.operations.jobs.show(call.actor, call.id))


async def pause_job(call: Call) -> ApiResponse:
    """Pause a job: it starts no more deliveries until it is resumed."""
    return ApiResponse(await call.operations.jobs.pause(call.actor, call.id))


async def resume_job(call: Call) -> ApiResponse:
    """Resume a paused job, behind its last delivery."""
    return ApiResponse(await call.operations.jobs.resume(call.actor, call.id))


async def cancel_job(call: Call) -> ApiResponse:
    """Cancel a job: it starts no more deliveries, and those that it has started go on."""
    return ApiResponse(await call.operations.jobs.cancel(call.actor, call.id))


async def recover_endpoint(call: Call, fields: EndpointRecovery) -> ApiResponse:
    """Replay the deliveries to an endpoint that failed since a time.

    Deliveries that a pause or a disabled endpoint cancelled are included. `dry_run` only counts.
    """
    if fields.dry_run:
        count = await call.operations.jobs.count_recovery(call.actor, call.id, fields)
        return ApiResponse(count, 200)
    return ApiResponse(await call.operations.jobs.recover(call.actor, call.id, fields))
