"""`dispatcher job`: bulk resends and replays."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dispatcher.admin.resources.job import JobsQuery
from dispatcher.cli.commands import CommandGroup
from dispatcher.cli.common import Yes, confirm, run_step
from dispatcher.cli.output import (
    Column,
    Output,
    age_column,
    say,
    say_object,
    say_page,
    tell,
)
from dispatcher.cli.resource_options import Fields, takes

if TYPE_CHECKING:
    from dispatcher.admin.resources.job import JobCount
    from dispatcher.cli.session import Session

group = CommandGroup()

Id = Annotated[str, typer.Argument(metavar="ID", help="The job's id, job_…")]
Rate = Annotated[
    float,
    typer.Option("--rate", metavar="N", help="Deliveries per second, 0.1 to 1000."),
]


def _columns() -> tuple[Column, ...]:
    return (
        Column("ID", "id"),
        Column("TENANT", "tenant", is_wide=True),
        Column("KIND", "kind"),
        Column("STATE", "state", is_state=True),
        Column("TOTAL", "total_count"),
        Column("STARTED", "started_count", is_wide=True),
        Column("WAITING", "waiting_count", is_wide=True),
        Column("OK", "succeeded_count"),
        Column("FAILED", "failed_count"),
        Column("REQUESTED BY", "requested_by", is_wide=True),
        age_column(),
    )


def create_job(
    context: typer.Context, job: Mapping[str, Any], *, dry_run: bool, yes: bool, output: Output
) -> None:
    """Count the deliveries of a job, ask for confirmation, and create it."""

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.jobs import JobOperations
        from dispatcher.admin.resources.job import JobFilter, NewJob

        operations = JobOperations(session.deployment)
        filter_ = await session.resolved(job["filter"])
        target = await session.resolved({"to": job.get("to"), "tenant": filter_.get("tenant")})
        new = NewJob.of(**{**job, "to": target["to"], "filter": JobFilter.of(**filter_)})
        if dry_run or not yes:
            counted = await operations.count(session.actor, new)
            if dry_run:
                say_object(counted, output=output, human=_say_count)
                return
            _confirm(new.kind, counted)
        answer = await operations.create(session.actor, new)
        say_object(answer, output=output)
        tell(f"created; to see the progress: dispatcher job show {answer.id}")

    run_step(context, step)


def _say_count(counted: "JobCount") -> None:
    say(_text(counted))
    for reason, count in counted.skipped.items():
        tell(f"left out: {count} ({reason})")


def _text(counted: "JobCount") -> str:
    if counted.is_complete:
        return f"{counted.count}"
    return f"{counted.count} created before {counted.counted_until}, and more"


def _confirm(kind: str, counted: "JobCount") -> None:
    """Ask for confirmation with the number, unless there is nothing to send."""
    for reason, count in counted.skipped.items():
        tell(f"left out: {count} ({reason})")
    if not counted.count:
        tell("no deliveries")
        raise typer.Exit
    confirm(f"{kind.capitalize()} these deliveries: {_text(counted)}?", yes=False)


@group.command("list")
@takes(JobsQuery)
def page(context: typer.Context, fields: Fields, output: Output) -> None:
    """List jobs, newest first.

    Examples:
      dispatcher job list
      dispatcher job list --state running -o wide
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.jobs import JobOperations

        answer = await JobOperations(session.deployment).page(session.actor, JobsQuery.of(**fields))
        say_page(answer, _columns(), output=output, empty="no jobs")

    run_step(context, step)


@group.command()
def show(context: typer.Context, job_id: Id, output: Output) -> None:
    """Show a job with its progress.

    Examples:
      dispatcher job show job_01kat9zma1e4gbryhh3m9dq2yw
    """
    _act(context, "show", job_id, output)


@group.command()
def pause(context: typer.Context, job_id: Id, output: Output) -> None:
    """Pause a job; it starts no more deliveries until it is resumed.

    Examples:
      dispatcher job pause job_01kat9zma1e4gbryhh3m9dq2yw
    """
    _act(context, "pause", job_id, output)


@group.command()
def resume(context: typer.Context, job_id: Id, output: Output) -> None:
    """Resume a paused job after the last delivery that it started.

    Examples:
      dispatcher job resume job_01kat9zma1e4gbryhh3m9dq2yw
    """
    _act(context, "resume", job_id, output)


@group.command()
def cancel(context: typer.Context, job_id: Id, output: Output, yes: Yes = False) -> None:
    """Cancel a job; it starts no more deliveries.

    Those that it has started go on.

    Examples:
      dispatcher job cancel job_01kat9zma1e4gbryhh3m9dq2yw --yes
    """
    confirm(f"Cancel {job_id}?", yes=yes)
    _act(context, "cancel", job_id, output)


def _act(
    context: typer.Context,
    act: Literal["show", "pause", "resume", "cancel"],
    job_id: str,
    output: Output,
) -> None:
    """Show a job, after pausing, resuming or cancelling it."""

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.jobs import JobOperations

        operations = JobOperations(session.deployment)
        acts = {
            "show": operations.show,
            "pause": operations.pause,
            "resume": operations.resume,
            "cancel": operations.cancel,
        }
        say_object(await acts[act](session.actor, job_id), output=output)

    run_step(context, step)
