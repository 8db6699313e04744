"""`dispatcher delivery`: the deliveries of each event to each endpoint."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.admin.resources.delivery import DeliveriesQuery, ResendOptions
from dispatcher.cli.common import Json, Yes, run_step
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
    no_args_is_help=True, help="Deliveries: list, show with attempts, resend, cancel."
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
@takes(ResendOptions)
def resend(
    context: typer.Context,
    fields: Fields,
    delivery_id: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="The delivery's id. Without it, use a filter."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only count the matching deliveries.")
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Resend a delivery, or all that match a filter: the running dispatcher makes one more attempt each.

    If the attempt succeeds, the delivery is succeeded; a failure changes nothing and starts no schedule. A waiting
    delivery is sent now and keeps its place in the schedule. With a filter, the command shows the number and asks
    for confirmation.

    Examples:
      dispatcher delivery resend wh_01kat9zma1gk18t0mvx8z4q6re

      dispatcher delivery resend --state failed --since 2h --dry-run
    """
    if (delivery_id is None) != bool(fields.keys() - {"cursor"}):
        raise typer.BadParameter("give either an ID or a filter such as --state failed")
    if delivery_id is not None:
        _resend_one(context, delivery_id, as_json=as_json)
        return

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.deliveries import DeliveryOperations

        wanted, operations = DeliveriesQuery.of(**fields), DeliveryOperations(session.deployment)
        counted = await operations.resend_matching(session.actor, wanted, dry_run=True)
        count = f"{counted.count}{' or more' if counted.capped else ''}"
        if dry_run:
            say_object(counted, as_json=as_json, human=lambda _: say(count))
            return
        if not counted.count:
            tell("no deliveries")
        elif not yes:
            limit = f", the newest {counted.limit} of them now" if counted.capped else ""
            typer.confirm(f"{count} found; resend{limit}?", abort=True, err=True)
        answer = await operations.resend_matching(
            session.actor, wanted, dry_run=False, progress=_progress(counted.count)
        )
        say_object(answer, as_json=as_json, human=lambda one: say(str(one.count)))
        if answer.next_cursor is not None:
            tell(f"there are more: repeat the command with --cursor {answer.next_cursor}")

    run_step(context, step)


def _resend_one(context: typer.Context, delivery_id: str, *, as_json: bool) -> None:
    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.deliveries import DeliveryOperations

        answer = await DeliveryOperations(session.deployment).resend(session.actor, delivery_id)
        say_object(answer, as_json=as_json)
        tell(f"requested; to see the result: dispatcher delivery show {delivery_id}")

    run_step(context, step)


def _progress(total: int) -> Callable[[int], None]:
    """Return a function that prints the progress on a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        return lambda _: None
    return lambda count: tell(f"requested {count} of {total}")


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
