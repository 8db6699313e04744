"""`dispatcher event`: the committed events and their deliveries."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.admin.resources.event import EventsQuery
from dispatcher.cli.common import Json, Yes, run_step
from dispatcher.cli.output import say, say_fields, say_object, say_page, say_table, tell
from dispatcher.cli.resource_options import Fields, takes
from dispatcher.cli.values import moment, single_pairs, text_or_file
from dispatcher.core.printable import escape

if TYPE_CHECKING:
    from dispatcher.admin.resources.event import EventWithDeliveries, Explanation
    from dispatcher.cli.session import Session

group = typer.Typer(
    no_args_is_help=True, help="Events: publish, list, show, erase; explain their deliveries."
)

Id = Annotated[str, typer.Argument(metavar="ID", help="The event's id, evt_…")]
Tenant = Annotated[str | None, typer.Option(help="Default: `default`; for lists: all tenants.")]

_COLUMNS = ("id", "type", "tenant", "accepted_at", "labels", "data")
_QUARANTINED_COLUMNS = ("id", "type", "tenant", "quarantined_at", "data")
_DELIVERY_COLUMNS = ("id", "endpoint_id", "state", "reason", "attempt_count", "next_attempt_at")


@group.command()
def publish(
    context: typer.Context,
    event_type: Annotated[
        str, typer.Argument(metavar="TYPE", help="The event type, such as order.created.")
    ],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="JSON|@FILE|-", help="A JSON object. Default: the sample of the catalogue."
        ),
    ] = None,
    event_id: Annotated[
        str | None,
        typer.Option(
            "--id", help="Makes the command idempotent: a known id returns the first event."
        ),
    ] = None,
    tenant: Tenant = None,
    occurred_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="RFC 3339. Default: now.")
    ] = None,
    ordering_key: Annotated[str | None, typer.Option(help="Up to 256 characters.")] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="For filters and search. May be repeated."),
    ] = None,
    traceparent: Annotated[
        str | None, typer.Option(help="W3C trace context, passed on to receivers.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Commit an event, as a producer's INSERT would.

    Examples:
      dispatcher event publish order.created

      dispatcher event publish order.created --data '{"order_id": "ORD-2026-1234"}' --id ord-1234

      echo '{"order_id": "1"}' | dispatcher event publish order.created --data -
    """
    text = None if data is None else text_or_file(data, "--data")
    at = moment(occurred_at, "--occurred-at")
    given = single_pairs(labels or [], "--labels")

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.events import Events, NewEvent
        from dispatcher.core.errors import InvalidRequestError
        from dispatcher.core.matching import event_type_problems
        from dispatcher.core.problems import problem

        body = text
        if body is None:
            known = session.deployment.catalogue.types.get(event_type)
            if known is None:
                missing = problem("data", "sample_missing", event_type=event_type)
                raise InvalidRequestError([*event_type_problems(event_type), missing])
            body = known.sample
        event = NewEvent(
            type=event_type,
            data=body,
            id=event_id,
            tenant=tenant,
            occurred_at=at,
            ordering_key=ordering_key,
            labels=given,
            traceparent=traceparent,
        )
        answer, is_new = await Events(session.deployment).publish(session.actor, event)
        if not is_new:
            tell("this id is already known; nothing was published. The first event is:")
        say_object(answer, as_json=as_json)

    run_step(context, step)


@group.command("list")
@takes(EventsQuery)
def page(
    context: typer.Context,
    fields: Fields,
    quarantined: Annotated[
        bool,
        typer.Option("--quarantined", help="Only events whose fan-out Postgres rejected."),
    ] = False,
    as_json: Json = False,
) -> None:
    """List events, newest first; an event without accepted_at is waiting in the outbox.

    Examples:
      dispatcher event list --type order.created --since 2h

      dispatcher event list --label customer=acme --json
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.events import Events

        query = EventsQuery.of(**fields, quarantined=quarantined)
        answer = await Events(session.deployment).page(session.actor, query)
        columns = _QUARANTINED_COLUMNS if quarantined else _COLUMNS
        empty = "no quarantined events" if quarantined else "no events"
        say_page(answer, columns, as_json=as_json, empty=empty)

    run_step(context, step)


@group.command()
def show(context: typer.Context, event_id: Id, as_json: Json = False) -> None:
    """Show an event with its deliveries; the newest event if an id was used twice.

    Example:  dispatcher event show evt_2026_000001
    """

    def human(event: "EventWithDeliveries") -> None:
        say_fields(event, leave_out=("deliveries",))
        say()
        say_table(event.deliveries, _DELIVERY_COLUMNS, "no deliveries")

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.events import Events

        answer = await Events(session.deployment).show(session.actor, event_id)
        say_object(answer, as_json=as_json, human=human)

    run_step(context, step)


@group.command()
def release(
    context: typer.Context,
    event_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of events.")],
    as_json: Json = False,
) -> None:
    """Return quarantined events to the queue, after the cause was fixed.

    An event gets a new id if an earlier event has its id.

    Example:  dispatcher event release evt_2026_000013
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.events import Events

        for event_id in event_ids:
            answer = await Events(session.deployment).release(session.actor, event_id)
            if answer.id != event_id:
                tell(f"{event_id} is the id of an earlier event; the new id is {answer.id}")
            if as_json:
                say_object(answer, as_json=True)
            else:
                say(f"{answer.id} is released")

    run_step(context, step)


@group.command()
def explain(context: typer.Context, event_id: Id, as_json: Json = False) -> None:
    """Explain why each endpoint did or did not get an event, and show the next step.

    Example:  dispatcher event explain evt_2026_000001
    """

    def human(explained: "Explanation") -> None:
        event = explained.event
        say(f"{event.id} ({event.type}): {explained.summary}")
        for one in explained.endpoints:
            say()
            sign = "+" if one.gets_it else "-"
            say(f"{sign} {one.endpoint_name} ({one.endpoint_id}, {one.endpoint_state})")
            say(f"  {one.why}: {one.explanation}")
            say(f"  next: {one.next}")
        if not explained.endpoints:
            tell(f"the tenant {event.tenant} has no endpoints")

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.explain import Explainer

        answer = await Explainer(session.deployment).explain(session.actor, event_id)
        say_object(answer, as_json=as_json, human=human)

    run_step(context, step)


@group.command()
def erase(
    context: typer.Context,
    event_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="The event's id.")] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Instead of an id: every event with this label. May be repeated.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only count the matching events.")
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Erase the contents of events: data, labels, bodies and stored responses. This cannot be undone.

    Ids and states are kept. Waiting deliveries are cancelled. Receivers, backups and your own tables keep their
    copies.

    Examples:
      dispatcher event erase evt_2026_000001 --dry-run

      dispatcher event erase --label employee=E1234 --yes
    """
    labels = single_pairs(label or [], "--label")
    if (event_id is None) == (not labels):
        raise typer.BadParameter("give either the event's id or labels", param_hint="ID or --label")
    if not (dry_run or yes):
        what = event_id or "every event with " + ", ".join(label or ())
        typer.confirm(escape(f"Erase {what} permanently?"), abort=True, err=True)

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.erasure import Erasure

        answer = await Erasure(session.deployment).erase(
            session.actor, event_id=event_id, labels=labels or None, dry_run=dry_run
        )
        say_object(answer, as_json=as_json)

    run_step(context, step)
