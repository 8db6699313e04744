"""`dispatcher schedule`: waiting deliveries by due time."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.admin.resources.schedule import ScheduleQuery, SelectionFilter
from dispatcher.cli.common import Json, Yes, run_step
from dispatcher.cli.output import say, say_object, say_page, tell
from dispatcher.cli.resource_options import Fields, takes
from dispatcher.cli.values import coming_moment, span_seconds

if TYPE_CHECKING:
    from dispatcher.cli.session import Session

group = typer.Typer(
    no_args_is_help=True,
    help="The schedule of waiting deliveries: list by due time, retry, postpone, cancel.",
)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count the matching deliveries.")]

_COLUMNS = (
    "id",
    "due_at",
    "attempt_number",
    "endpoint_name",
    "event_type",
    "event_id",
    "why",
)


@group.command("list")
@takes(ScheduleQuery)
def page(context: typer.Context, fields: Fields, as_json: Json = False) -> None:
    """List waiting deliveries by due time, with the next attempt's number and why each waits.

    Examples:
      dispatcher schedule list

      dispatcher schedule list --event-type order.created --due-until 1h --json
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.schedule import Schedule

        answer = await Schedule(session.deployment).page(session.actor, ScheduleQuery.of(**fields))
        say_page(answer, _COLUMNS, as_json=as_json, empty="no deliveries are waiting")

    run_step(context, step)


@group.command()
@takes(SelectionFilter)
def retry(
    context: typer.Context,
    fields: Fields,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Make the waiting deliveries of a filter due now; the command first shows how many match.

    Each gets its next scheduled attempt within its endpoint's limits. To send deliveries behind an open breaker, use
    `dispatcher endpoint retry`.

    Examples:
      dispatcher schedule retry --event-type order.created --dry-run

      dispatcher schedule retry --ids wh_01kat9zma1gk18t0mvx8z4q6re --yes
    """
    _change(context, "retry", fields, dry_run=dry_run, yes=yes, as_json=as_json)


@group.command()
@takes(SelectionFilter)
def postpone(
    context: typer.Context,
    fields: Fields,
    by: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Later than its due time by this: 15m, 2h, 1d."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="The new due time: RFC 3339, or a time from now: 2h."),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Postpone the waiting deliveries of a filter; the command first shows how many match.

    Examples:
      dispatcher schedule postpone --event-type order.created --by 2h --dry-run

      dispatcher schedule postpone --event-type order.created --to 8h --yes
    """
    if (by is None) == (to is None):
        raise typer.BadParameter("give either --by or --to", param_hint="--by")
    by_seconds = None if by is None else span_seconds(by, "--by")
    due_at = coming_moment(to, "--to")
    _change(
        context, "postpone", fields, by_seconds=by_seconds, due_at=due_at,
        dry_run=dry_run, yes=yes, as_json=as_json,
    )  # fmt: skip


@group.command()
@takes(SelectionFilter)
def cancel(
    context: typer.Context,
    fields: Fields,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Cancel the waiting deliveries of a filter; you can resend them later. The command first shows how many match.

    Examples:
      dispatcher schedule cancel --event-type order.created --dry-run

      dispatcher schedule cancel --ids wh_01kat9zma1gk18t0mvx8z4q6re --yes
    """
    _change(context, "cancel", fields, dry_run=dry_run, yes=yes, as_json=as_json)


def _change(
    context: typer.Context,
    name: str,
    fields: Fields,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    by_seconds: float | None = None,
    due_at: datetime | None = None,
) -> None:
    """Count the deliveries of a filter, ask, and change them."""

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.schedule import Change, Schedule
        from dispatcher.admin.resources.schedule import Postponement, ScheduleChange
        from dispatcher.runtime.clock import SystemClock

        now = SystemClock.now()
        if name == Change.POSTPONE:
            given = Postponement.of(
                now, filter=dict(fields), by_seconds=by_seconds, due_at=due_at
            ).filter
        else:
            given = ScheduleChange.of(now, filter=dict(fields)).filter
        change, schedule = Change(name), Schedule(session.deployment)
        counted = await schedule.change(
            session.actor, change, given, dry_run=True, by_seconds=by_seconds, due_at=due_at
        )
        count = f"{counted.count}{' or more' if counted.capped else ''}"
        if dry_run:
            say_object(counted, as_json=as_json, human=lambda _: say(count))
            return
        if not counted.count:
            tell("no deliveries")
        elif not yes:
            typer.confirm(f"{count} found; {name} them?", abort=True, err=True)
        answer = await schedule.change(
            session.actor, change, given, dry_run=False, by_seconds=by_seconds, due_at=due_at
        )
        say_object(answer, as_json=as_json, human=lambda one: say(str(one.count)))
        if answer.capped:
            tell("there are more: repeat the command")

    run_step(context, step)
