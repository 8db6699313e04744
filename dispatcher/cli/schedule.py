"""`dispatcher schedule`: waiting deliveries by due time."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.admin.resources.schedule import ScheduleQuery, SelectionFilter
from dispatcher.cli.commands import CommandGroup
from dispatcher.cli.common import DryRun, Yes, confirm, run_step
from dispatcher.cli.output import Column, Output, age_column, say, say_object, say_page, tell
from dispatcher.cli.resource_options import Fields, takes
from dispatcher.cli.values import coming_moment, span_seconds

if TYPE_CHECKING:
    from dispatcher.cli.session import Session

group = CommandGroup()


def _columns() -> tuple[Column, ...]:
    return (
        Column("ID", "id"),
        age_column("due_at", "DUE"),
        Column("ATTEMPT", "attempt_number"),
        Column("ENDPOINT", "endpoint_name", can_be_cut=True),
        Column("TYPE", "event_type", can_be_cut=True, can_be_left_out=True),
        Column("EVENT ID", "event_id", is_wide=True),
        Column("WHY", lambda row: row.waits_for.code, can_be_cut=True, is_cut_last=True),
        Column("EXPLANATION", lambda row: row.waits_for.text, is_wide=True),
    )


@group.command("list")
@takes(ScheduleQuery)
def page(context: typer.Context, fields: Fields, output: Output) -> None:
    """List waiting deliveries by due time.

    ATTEMPT is the number of the next attempt. WHY is the code of the reason; -o wide explains it.

    Examples:
      dispatcher schedule list
      dispatcher schedule list --event-type order.created --due-until 1h -o wide
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.schedule import Schedule

        query = ScheduleQuery.of(**await session.resolved(fields))
        answer = await Schedule(session.deployment).page(session.actor, query)
        say_page(answer, _columns(), output=output, empty="no deliveries are waiting")

    run_step(context, step)


@group.command()
@takes(SelectionFilter)
def retry(
    context: typer.Context,
    fields: Fields,
    output: Output,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Make the waiting deliveries of a filter due now.

    The command shows how many match and asks for confirmation. Each gets its next scheduled attempt within its
    endpoint's limits. To send deliveries behind an open breaker, use `dispatcher endpoint retry`.

    Examples:
      dispatcher schedule retry --event-type order.created --dry-run
      dispatcher schedule retry --ids wh_01kat9zma1gk18t0mvx8z4q6re --yes
    """
    _change(context, "retry", fields, dry_run=dry_run, yes=yes, output=output)


@group.command()
@takes(SelectionFilter)
def postpone(
    context: typer.Context,
    fields: Fields,
    output: Output,
    by: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="How much later than its due time: 15m, 2h, 1d."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="The new due time: RFC 3339, or a time from now: 2h."),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Postpone the waiting deliveries of a filter.

    The command shows how many match and asks for confirmation.

    Examples:
      dispatcher schedule postpone --event-type order.created --by 2h --dry-run
      dispatcher schedule postpone --event-type order.created --to 8h --yes
    """
    if (by is None) == (to is None):
        raise typer.BadParameter("give either --by or --to.", param_hint="--by")
    by_seconds = None if by is None else span_seconds(by, "--by")
    due_at = coming_moment(to, "--to")
    _change(
        context, "postpone", fields, by_seconds=by_seconds, due_at=due_at,
        dry_run=dry_run, yes=yes, output=output,
    )  # fmt: skip


@group.command()
@takes(SelectionFilter)
def cancel(
    context: typer.Context,
    fields: Fields,
    output: Output,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Cancel the waiting deliveries of a filter.

    The command shows how many match and asks for confirmation. You can resend cancelled deliveries later.

    Examples:
      dispatcher schedule cancel --event-type order.created --dry-run
      dispatcher schedule cancel --ids wh_01kat9zma1gk18t0mvx8z4q6re --yes
    """
    _change(context, "cancel", fields, dry_run=dry_run, yes=yes, output=output)


def _change(
    context: typer.Context,
    name: str,
    fields: Fields,
    *,
    dry_run: bool,
    yes: bool,
    output: Output,
    by_seconds: float | None = None,
    due_at: datetime | None = None,
) -> None:
    """Count the deliveries of a filter, ask, and change them."""

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.schedule import Change, Schedule
        from dispatcher.admin.resources.schedule import Postponement, ScheduleChange
        from dispatcher.runtime.clock import SystemClock

        now, conditions = SystemClock.now(), await session.resolved(fields)
        if name == Change.POSTPONE:
            given = Postponement.of(
                now, filter=conditions, by_seconds=by_seconds, due_at=due_at
            ).filter
        else:
            given = ScheduleChange.of(now, filter=conditions).filter
        change, schedule = Change(name), Schedule(session.deployment)
        counted = await schedule.change(
            session.actor, change, given, dry_run=True, by_seconds=by_seconds, due_at=due_at
        )
        count = f"{counted.count}{' or more' if counted.capped else ''}"
        if dry_run:
            say_object(counted, output=output, human=lambda _: say(count))
            return
        if not counted.count:
            tell("no deliveries")
        elif not yes:
            confirm(f"{name.capitalize()} {count} deliveries?", yes=False)
        answer = await schedule.change(
            session.actor, change, given, dry_run=False, by_seconds=by_seconds, due_at=due_at
        )
        say_object(answer, output=output, human=lambda one: say(str(one.count)))
        if answer.capped:
            tell("there are more: repeat the command")

    run_step(context, step)
