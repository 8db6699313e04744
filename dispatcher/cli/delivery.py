"""`dispatcher delivery`: the deliveries of each event to each endpoint."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.admin.resources.delivery import DeliveriesQuery
from dispatcher.admin.resources.job import RATE_DEFAULT, JobOptions
from dispatcher.cli.common import Json, Yes, run_step
from dispatcher.cli.job import DryRun, Rate, create_job
from dispatcher.cli.output import (
    fields_of,
    say,
    say_fields,
    say_object,
    say_page,
    say_table,
    tell,
)
from dispatcher.cli.resource_options import Fields, takes

if TYPE_CHECKING:
    from dispatcher.admin.resources.delivery_report import DeliveryReport
    from dispatcher.cli.session import Session

group = typer.Typer(
    no_args_is_help=True, help="Deliveries: list, show with attempts, resend, replay, cancel."
)

Id = Annotated[str, typer.Argument(metavar="ID", help="The delivery's id, wh_…")]

_COLUMNS = (
    "id",
    "event_type",
    "event_id",
    "endpoint_id",
    "state",
    "reason",
    "attempt_count",
    "next_attempt_at",
)
_ATTEMPT_COLUMNS = (
    "attempt_number",
    "trigger",
    "outcome",
    "response_code",
    "attempted_at",
    "latency_seconds",
    "error",
    "response_body",
)


@group.command("list")
@takes(DeliveriesQuery)
def page(context: typer.Context, fields: Fields, as_json: Json = False) -> None:
    """List deliveries, newest first.

    Examples:
      dispatcher delivery list --state failed --since 1d

      dispatcher delivery list --search ORD-2026-1234 --json
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.deliveries import DeliveryOperations

        query = DeliveriesQuery.of(**fields)
        answer = await DeliveryOperations(session.deployment).page(session.actor, query)
        say_page(answer, _COLUMNS, as_json=as_json, empty="no deliveries")

    run_step(context, step)


@group.command()
def show(context: typer.Context, delivery_id: Id, as_json: Json = False) -> None:
    """Show a delivery with its attempts, the reason for its state, and the next step.

    Example:  dispatcher delivery show wh_01kat9zma1gk18t0mvx8z4q6re
    """

    def human(report: "DeliveryReport") -> None:
        advice = {"advice": report.why.advice} if report.why.advice else {}
        words = {"why": report.why.text, "next": report.next.text, **advice}
        say_fields({**fields_of(report.delivery), **words}, leave_out=("attempts",))
        say()
        say_table(report.delivery.attempts, _ATTEMPT_COLUMNS, "no attempts so far")
        for attempt in report.delivery.attempts:
            if attempt.response_headers:
                say()
                say(f"response headers of attempt {attempt.attempt_number}:")
                for header in attempt.response_headers:
                    say(f"  {header.name}: {header.value}")

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.deliveries import DeliveryOperations
        from dispatcher.admin.operations.delivery_report import DeliveryReports

        if as_json:
            operations = DeliveryOperations(session.deployment)
            say_object(await operations.show(session.actor, delivery_id), as_json=True)
        else:
            human(await DeliveryReports(session.deployment).delivery(session.actor, delivery_id))

    run_step(context, step)


@group.command()
@takes(JobOptions)
def resend(
    context: typer.Context,
    fields: Fields,
    delivery_id: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="The delivery's id. Without it, use a filter."),
    ] = None,
    rate: Rate = RATE_DEFAULT,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Resend a delivery, or all that match a filter: the running dispatcher makes one more attempt each.

    If the attempt succeeds, the delivery is succeeded; a failure changes nothing and starts no schedule. A waiting
    delivery is sent now and keeps its place in the schedule. With a filter, the command shows the number, asks for
    confirmation and creates a job.

    Examples:
      dispatcher delivery resend wh_01kat9zma1gk18t0mvx8z4q6re

      dispatcher delivery resend --state failed --since 2h --dry-run
    """
    if (delivery_id is None) != bool(fields):
        raise typer.BadParameter("give either an ID or a filter such as --state failed")
    if delivery_id is not None:
        _resend_one(context, delivery_id, as_json=as_json)
        return
    job = {"kind": "resend", "filter": dict(fields), "rate_per_second": rate}
    create_job(context, job, dry_run=dry_run, yes=yes, as_json=as_json)


@group.command()
@takes(JobOptions)
def replay(
    context: typer.Context,
    fields: Fields,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="ENDPOINT",
            help="Id or name of the endpoint that gets the events. Default: each delivery's own.",
        ),
    ] = None,
    rate: Rate = RATE_DEFAULT,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Replay the deliveries of a filter: each runs through the whole retry schedule again.

    This includes deliveries that were cancelled. With --to, another endpoint gets the events that it subscribes to,
    even if it did not exist at the time. The command shows the number, asks for confirmation and creates a job.

    Examples:
      dispatcher delivery replay --state failed --since 2h --dry-run

      dispatcher delivery replay --event-type order.created --since 7d --to erp --yes
    """
    if not fields:
        raise typer.BadParameter("give a filter such as --state failed")
    job = {"kind": "replay", "filter": dict(fields), "to": to, "rate_per_second": rate}
    create_job(context, job, dry_run=dry_run, yes=yes, as_json=as_json)


def _resend_one(context: typer.Context, delivery_id: str, *, as_json: bool) -> None:
    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.deliveries import DeliveryOperations

        answer = await DeliveryOperations(session.deployment).resend(session.actor, delivery_id)
        say_object(answer, as_json=as_json)
        tell(f"requested; to see the result: dispatcher delivery show {delivery_id}")

    run_step(context, step)


@group.command()
def cancel(
    context: typer.Context,
    delivery_id: Id,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Cancel a waiting delivery; you can resend it later.

    Example:  dispatcher delivery cancel wh_01kat9zma1gk18t0mvx8z4q6re --yes
    """
    if not yes:
        typer.confirm(f"Cancel {delivery_id}?", abort=True, err=True)

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.deliveries import DeliveryOperations

        answer = await DeliveryOperations(session.deployment).cancel(session.actor, delivery_id)
        say_object(answer, as_json=as_json)

    run_step(context, step)
