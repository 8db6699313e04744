"""`dispatcher event publish`: one event, or a batch."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli.commands import CommandGroup
from dispatcher.cli.common import run_step
from dispatcher.cli.completion import complete_event_types
from dispatcher.cli.output import Output, say, say_object, tell
from dispatcher.cli.values import moment, single_pairs, text_or_file

if TYPE_CHECKING:
    from dispatcher.admin.resources.event import PublishedBatch
    from dispatcher.cli.session import Session


def add_to(group: CommandGroup) -> None:
    """Add this command to `dispatcher event`."""
    group.command()(publish)


def publish(
    context: typer.Context,
    event_type: Annotated[
        str,
        typer.Argument(
            metavar="TYPE|@FILE|-",
            help="The event type, such as order.created. Or a file or standard input with a batch: one event"
            " as JSON per line, or a JSON array.",
            autocompletion=complete_event_types,
        ),
    ],
    output: Output,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="JSON", help="An object, @FILE or -. Default: the sample of the catalogue."
        ),
    ] = None,
    event_id: Annotated[
        str | None,
        typer.Option(
            "--id",
            metavar="ID",
            help="Makes the command idempotent: a known id returns the first event.",
        ),
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(metavar="TENANT", help="The event's tenant. Default: default.")
    ] = None,
    occurred_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="RFC 3339. Default: now.")
    ] = None,
    ordering_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Up to 256 characters.")
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="For filters and search. May be repeated."),
    ] = None,
    traceparent: Annotated[
        str | None,
        typer.Option(metavar="TRACEPARENT", help="W3C trace context, passed on to receivers."),
    ] = None,
    all_or_nothing: Annotated[
        bool,
        typer.Option("--all-or-nothing", help="Publish no event of a batch if one is invalid."),
    ] = False,
) -> None:
    r"""Commit an event or a batch of events, as a producer would.

    Examples:
      dispatcher event publish order.created
      dispatcher event publish order.created --id ord-1234 \
        --data '{"order_id": "ORD-2026-1234"}'
      echo '{"order_id": "1"}' | dispatcher event publish order.created --data -
      echo '{"type": "order.created", "data": {}}' | dispatcher event publish -
    """
    if event_type == "-" or event_type.startswith("@"):
        single = (data, event_id, tenant, occurred_at, ordering_key, labels, traceparent)
        if any(single):
            raise typer.BadParameter(
                "the fields of a batch's events are in the batch.", param_hint=event_type
            )
        _publish_batch(context, event_type, all_or_nothing=all_or_nothing, output=output)
        return
    if all_or_nothing:
        raise typer.BadParameter("needs a batch: @FILE or -.", param_hint="--all-or-nothing")
    text = None if data is None else text_or_file(data, "--data")
    at = moment(occurred_at, "--occurred-at")
    given = single_pairs(labels or [], "--labels")

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.events import Events
        from dispatcher.admin.operations.new_event import NewEvent
        from dispatcher.core.errors import InvalidRequestError
        from dispatcher.core.matching import event_type_problems
        from dispatcher.core.problems import problem

        body = text
        if body is None:
            known = session.deployment.catalogue.types.get(event_type)
            if known is None:
                problems = event_type_problems(event_type)
                if similar := session.similar_types(event_type):
                    names = " or ".join(similar)
                    values = {"kind": "event type", "value": event_type, "similar": names}
                    problems.append(problem("type", "similar_name", **values))
                missing = problem("data", "sample_missing", event_type=event_type)
                raise InvalidRequestError([*problems, missing])
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
        say_object(answer, output=output)

    run_step(context, step)


def _publish_batch(
    context: typer.Context, source: str, *, all_or_nothing: bool, output: Output
) -> None:
    text = text_or_file(source, "@FILE")

    def human(batch: "PublishedBatch") -> None:
        say(f"created {batch.created}, known {batch.known}, rejected {batch.rejected}")
        for one in batch.results:
            for error in one.errors or ():
                tell(f"events[{one.index}].{error.field}: {error.message} {error.fix}")

    async def step(session: "Session") -> None:
        from dispatcher.admin.api.batch_decoder import decode_batch
        from dispatcher.admin.operations.events import Events
        from dispatcher.admin.operations.new_event import NewEvent
        from dispatcher.core.errors import InvalidRequestError

        events: list[NewEvent | InvalidRequestError] = []
        for members in decode_batch(text.encode()):
            try:
                if isinstance(members, InvalidRequestError):
                    raise members
                events.append(NewEvent.read(members))
            except InvalidRequestError as error:
                events.append(error)
        batch = await Events(session.deployment).publish_batch(
            session.actor, events, all_or_nothing=all_or_nothing
        )
        say_object(batch, output=output, human=human)
        if batch.rejected:
            raise typer.Exit(1)

    run_step(context, step)
