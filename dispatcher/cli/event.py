"""`dispatcher event`: the committed events and their deliveries."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.admin.resources.content_filter import FilterTest
from dispatcher.admin.resources.event import EventsQuery
from dispatcher.cli import event_publishing
from dispatcher.cli.commands import CommandGroup
from dispatcher.cli.common import Yes, confirm, run_step
from dispatcher.cli.completion import complete_event_types
from dispatcher.cli.delivery import columns as delivery_columns
from dispatcher.cli.output import (
    Column,
    Output,
    age_column,
    say,
    say_fields,
    say_object,
    say_page,
    say_table,
    tell,
)
from dispatcher.cli.resource_options import Fields, takes
from dispatcher.cli.values import single_pairs

if TYPE_CHECKING:
    from dispatcher.admin.resources.content_filter import FilterTestResult
    from dispatcher.admin.resources.event import (
        CheckedEventType,
        EventWithDeliveries,
        Explanation,
    )
    from dispatcher.cli.session import Session

group = CommandGroup()
event_publishing.add_to(group)

Id = Annotated[str, typer.Argument(metavar="ID", help="The event's id, evt_…")]


def _columns(*, quarantined: bool) -> tuple[Column, ...]:
    return (
        Column("ID", "id"),
        Column("TENANT", "tenant", if_different=True),
        Column("TYPE", "type", can_be_cut=True),
        Column("LABELS", "labels", can_be_cut=True),
        Column("DATA", "data", is_wide=True, can_be_cut=True),
        Column("ACCEPTED AT", "accepted_at", is_wide=True),
        age_column("quarantined_at" if quarantined else "inserted_at"),
    )


@group.command("list")
@takes(EventsQuery)
def page(
    context: typer.Context,
    fields: Fields,
    output: Output,
    quarantined: Annotated[
        bool,
        typer.Option("--quarantined", help="Only events whose fan-out Postgres rejected."),
    ] = False,
) -> None:
    """List events, newest first.

    An event without accepted_at is waiting in the outbox.

    Examples:
      dispatcher event list --type order.created --since 2h
      dispatcher event list --label customer=acme --json
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.events import Events

        query = EventsQuery.of(**fields, quarantined=quarantined)
        answer = await Events(session.deployment).page(session.actor, query)
        empty = "no quarantined events" if quarantined else "no events"
        empty += session.type_hint(query.type)
        say_page(answer, _columns(quarantined=quarantined), output=output, empty=empty)

    run_step(context, step)


@group.command()
def show(context: typer.Context, event_id: Id, output: Output) -> None:
    """Show an event with its deliveries.

    If several events have the id, the newest one is shown.

    Examples:
      dispatcher event show evt_2026_000001
    """

    def human(event: "EventWithDeliveries", names: Mapping[str, str]) -> None:
        say_fields(event, leave_out=("deliveries",))
        say()
        say_table(event.deliveries, delivery_columns(names), "no deliveries", output)

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.events import Events

        answer = await Events(session.deployment).show(session.actor, event_id)
        names = await session.endpoint_names(one.endpoint_id for one in answer.deliveries)
        say_object(answer, output=output, human=lambda event: human(event, names))

    run_step(context, step)


@group.command()
def release(
    context: typer.Context,
    event_ids: Annotated[list[str], typer.Argument(metavar="ID", help="The events' ids.")],
    output: Output,
) -> None:
    """Return quarantined events to the queue.

    Run it after you have fixed the cause. An event gets a new id if an earlier event has its id.

    Examples:
      dispatcher event release evt_2026_000013
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.events import Events

        for event_id in event_ids:
            answer = await Events(session.deployment).release(session.actor, event_id)
            if answer.id != event_id:
                tell(f"{event_id} is the id of an earlier event; the new id is {answer.id}")
            say_object(answer, output=output, human=lambda one: say(f"released {one.id}"))

    run_step(context, step)


@group.command()
def types(
    context: typer.Context,
    output: Output,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[TYPE]",
            help="One event type, with its schema.",
            autocompletion=complete_event_types,
        ),
    ] = None,
) -> None:
    """List the event types of the catalogue, or show one.

    The newest events of the type are compared with its schema.

    Examples:
      dispatcher event types
      dispatcher event types order.created -o json
    """

    def human(event_type: "CheckedEventType") -> None:
        say_fields(event_type, leave_out=("mismatching", "group_title"))
        for one in event_type.mismatching:
            for mismatch in one.schema_mismatches:
                say(f"{one.id}  {mismatch.field}: {mismatch.detail}")

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.event_types import EventTypes

        operations = EventTypes(session.deployment)
        if name is None:
            columns = (
                Column("TYPE", "name"),
                Column("GROUP", "group"),
                Column("SCHEMA", "schema_policy"),
                Column("TITLE", "title", is_wide=True, can_be_cut=True),
            )
            say_page(operations.catalogue(), columns, output=output, empty="no event types")
        else:
            say_object(await operations.show(session.actor, name), output=output, human=human)

    run_step(context, step)


@group.command("test-filter")
@takes(FilterTest)
def test_filter(context: typer.Context, fields: Fields, output: Output) -> None:
    """Try a content filter on the newest events.

    Nothing is sent or changed.

    Examples:
      dispatcher event test-filter --content-filter 'data.total > 1000'
    """

    def human(result: "FilterTestResult") -> None:
        say(
            f"would have matched {result.matched_count:,} of the last {result.checked_count:,} events"
            f" ({result.error_count:,} could not be evaluated)"
        )
        for one in result.events:
            sign = "+" if one.matched else "!" if one.error else "-"
            say(f"{sign} {one.id}  {one.type}{f'  {one.error}' if one.error else ''}")

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.content_filters import ContentFilters

        answer = await ContentFilters(session.deployment).test(
            session.actor, FilterTest.of(**fields)
        )
        say_object(answer, output=output, human=human)

    run_step(context, step)


@group.command()
def explain(context: typer.Context, event_id: Id, output: Output) -> None:
    """Explain which endpoints get an event, and why.

    For each endpoint of the tenant, it shows the reason and the next step.

    Examples:
      dispatcher event explain evt_2026_000001
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
        say_object(answer, output=output, human=human)

    run_step(context, step)


@group.command()
def erase(
    context: typer.Context,
    output: Output,
    event_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="The event's id. Without it, give labels.")
    ] = None,
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
) -> None:
    """Erase the contents of events. This cannot be undone.

    Data, labels, bodies and stored responses are erased. Ids and states are kept. Waiting deliveries are cancelled.
    Receivers, backups and your own tables keep their copies.

    Examples:
      dispatcher event erase evt_2026_000001 --dry-run
      dispatcher event erase --label employee=E1234 --yes
    """
    labels = single_pairs(label or [], "--label")
    if (event_id is None) == (not labels):
        raise typer.BadParameter("give either an id or labels.", param_hint="ID or --label")
    what = event_id or "every event with " + ", ".join(label or ())
    confirm(f"Erase {what} permanently?", yes=dry_run or yes)

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.erasure import Erasure

        answer = await Erasure(session.deployment).erase(
            session.actor, event_id=event_id, labels=labels or None, dry_run=dry_run
        )
        say_object(answer, output=output)

    run_step(context, step)
