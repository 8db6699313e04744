"""Deliveries that a receiver fetches, over HTTP."""

from dispatcher.admin.api.route import ApiResponse, Call
from dispatcher.admin.resources.pull import LeaseResults, PollQuery


async def poll_deliveries(call: Call, query: PollQuery) -> ApiResponse:
    """Fetch the next due deliveries of an endpoint with `delivery: pull`.

    Each one is leased to this client: no other poll returns it until the lease ends. Send the results with
    `POST /endpoints/{id}/poll`. A lease that ends without a result is a failed attempt (`timeout`), and the endpoint's
    schedule decides when the delivery is returned again.
    """
    return ApiResponse(await call.operations.pull.poll(call.actor, call.id, query))


async def settle_deliveries(call: Call, fields: LeaseResults) -> ApiResponse:
    """Acknowledge or reject fetched deliveries.

    `response_code` has the meaning that it has in a response to a push: 2xx acknowledges, others follow the schedule.
    A lease that has ended is `expired`.
    """
    return ApiResponse(await call.operations.pull.settle(call.actor, call.id, fields))
