"""Events over HTTP: published by producers outside the database, listed, shown, explained; the catalogue."""

from collections.abc import Sequence
from typing import Annotated

from dispatcher.admin.api.route import PREFIX, ApiResponse, Call
from dispatcher.admin.operations.new_event import NewEvent
from dispatcher.admin.resources.event import EventsQuery, NewEventFields, PublishQuery
from dispatcher.core.errors import InvalidRequestError


async def list_event_types(call: Call) -> ApiResponse:
    """List the event types of the catalogue.

    A type that is not in it is accepted and delivered all the same. `GET /asyncapi.json` describes the same types as an
    AsyncAPI 3 document.
    """
    return ApiResponse(call.operations.event_types.catalogue())


async def show_event_type(call: Call) -> ApiResponse:
    """Show an event type of the catalogue, and compare its newest events with its schema."""
    return ApiResponse(await call.operations.event_types.show(call.actor, call.names["name"]))


async def list_event_type_usage(call: Call) -> ApiResponse:
    """List event types with their subscribers and recent events.

    The types of the catalogue come first, then those of recent events that are not in it.
    """
    return ApiResponse(await call.operations.event_types.usage(call.actor))


async def list_events(call: Call, query: EventsQuery) -> ApiResponse:
    """List events, newest first, those that wait in the outbox included."""
    return ApiResponse(await call.operations.events.page(call.actor, query))


async def publish_event(
    call: Call, query: PublishQuery, fields: Annotated[NewEvent, NewEventFields]
) -> ApiResponse:
    """Publish an event, or a batch of events.

    For producers outside the database; `data` keeps its bytes: digits, order of names, spaces. With
    an `id` of your own publishing twice is safe: a known id answers 200 with the first event, and
    nothing new is published.

    A JSON array, or newline-delimited JSON with `Content-Type: application/x-ndjson`, is a batch of up to
    1,000 events and 16 MiB. It is committed in one transaction, and the response is 200 with a result for
    each event. Invalid events are left out. With `all_or_nothing=true` one invalid event rejects the batch.

    If the database is unavailable, the request waits for it, 10 s unless `Prefer: wait=N` names another
    number of seconds, up to 60.
    """
    del query  # one event is all or nothing
    event, is_new = await call.operations.events.publish(call.actor, fields, call.client)
    return ApiResponse(event, 201 if is_new else 200, {"Location": f"{PREFIX}/events/{event.id}"})


async def publish_events(
    call: Call, query: PublishQuery, fields: Sequence[NewEvent | InvalidRequestError]
) -> ApiResponse:
    """Publish a batch of events."""
    batch = await call.operations.events.publish_batch(
        call.actor,
        fields,
        all_or_nothing=query.all_or_nothing,
        client=call.client,
    )
    return ApiResponse(batch, 200)


async def show_event(call: Call) -> ApiResponse:
    """Show the newest event of an id with its deliveries."""
    return ApiResponse(await call.operations.events.show(call.actor, call.id))


async def release_event(call: Call) -> ApiResponse:
    """Return a quarantined event to the queue.

    It gets a new id if an earlier event has its id: the response has the event with the id that is used from then on.
    """
    return ApiResponse(await call.operations.events.release(call.actor, call.id))


async def explain_event(call: Call) -> ApiResponse:
    """Explain why each endpoint did or did not get an event, and what happens next."""
    return ApiResponse(await call.operations.explanation.explain(call.actor, call.id))
