"""`dispatcher job`: bulk resends and replays."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dispatcher.admin.resources.job import JobsQuery
from dispatcher.cli.common import Json, Yes, run_step
from dispatcher.cli.output import say, say_object, say_page, tell
from dispatcher.cli.resource_options import Fields, takes

if TYPE_CHECKING:
    from dispatcher.admin.resources.job import JobCount
    from dispatcher.cli.session import Session

group = typer.Typer(
    no_args_is_help=True, help="Jobs (bulk resends and replays): list, show, pause, resume, cancel."
)

Id = Annotated[str, typer.Argument(metavar="ID", help="The job's id, job_…")]
Rate = Annotated[
    float,
    typer.Option("--rate", help="At most so many deliveries per second, 0.1 to 1000."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count the matching deliveries.")]

_COLUMNS = (
    "id",
    "kind",
    "state",
    "total_count",
    "started_count",
    "waiting_count",
    "succeeded_count",
    "failed_count",
    "requested_by",
    "created_at",
)


def create_job(
    context: typer.Context, job: Mapping[str, Any], *, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Count the deliveries of a job, ask for confirmation, and create it."""

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.jobs import JobOperations
        from dispatcher.admin.resources.job import JobFilter, NewJob

        operations = JobOperations(session.deployment)
        new = NewJob.of(**{**job, "filter": JobFilter.of(**job["filter"])})
        if dry_run or not yes:
            counted = await operations.count(session.actor, new)
            if dry_run:
                say_object(counted, as_json=as_json, human=_say_count)
                return
            _confirm(new.kind, counted)
        answer = await operations.create(session.actor, new)
        say_object(answer, as_json=as_json)
        tell(f"created; to see the progress: dispatcher job show {answer.id}")

    run_step(context, step)


def _say_count(counted: "JobCount") -> None:
    say(_text(counted))
    for reason, count in counted.skipped.items():
        tell(f"left out: {count} ({reason})")


def _text(counted: "JobCount") -> str:
    return f"{counted.count}{'' if counted.is_complete else ' or more'}"


def _confirm(kind: str, counted: "JobCount") -> None:
    """Ask for confirmation with the number, unless there is nothing to send."""
    for reason, count in counted.skipped.items():
        tell(f"left out: {count} ({reason})")
    if not counted.count:
        tell("no deliveries")
        raise typer.Exit
    typer.confirm(f"{_text(counted)} found; {kind}?", abort=True, err=True)


@group.command("list")
@takes(JobsQuery)
def page(context: typer.Context, fields: Fields, as_json: Json = False) -> None:
    """List jobs, newest first.

    Examples:
      dispatcher job list

      dispatcher job list --state running --json
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.jobs import JobOperations

        answer = await JobOperations(session.deployment).page(session.actor, JobsQuery.of(**fields))
        say_page(answer, _COLUMNS, as_json=as_json, empty="no jobs")

    run_step(context, step)


@group.command()
def show(context: typer.Context, job_id: Id, as_json: Json = False) -> None:
    """Show a job with its progress.

    Example:  dispatcher job show job_01kat9zma1e4gbryhh3m9dq2yw
    """
    _act(context, "show", job_id, as_json=as_json)


@group.command()
def pause(context: typer.Context, job_id: Id, as_json: Json = False) -> None:
    """Pause a job: it starts no more deliveries until it is resumed.

    Example:  dispatcher job pause job_01kat9zma1e4gbryhh3m9dq2yw
    """
    _act(context, "pause", job_id, as_json=as_json)


@group.command()
def resume(context: typer.Context, job_id: Id, as_json: Json = False) -> None:
    """Resume a paused job, behind its last delivery.

    Example:  dispatcher job resume job_01kat9zma1e4gbryhh3m9dq2yw
    """
    _act(context, "resume", job_id, as_json=as_json)


@group.command()
def cancel(context: typer.Context, job_id: Id, yes: Yes = False, as_json: Json = False) -> None:
    """Cancel a job: it starts no more deliveries, and those that it has started go on.

    Example:  dispatcher job cancel job_01kat9zma1e4gbryhh3m9dq2yw --yes
    """
    if not yes:
        typer.confirm(f"Cancel {job_id}?", abort=True, err=True)

    _act(context, "cancel", job_id, as_json=as_json)


def _act(
    context: typer.Context,
    act: Literal["show", "pause", "resume", "cancel"],
    job_id: str,
    *,
    as_json: bool,
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
        say_object(await acts[act](session.actor, job_id), as_json=as_json)

    run_step(context, step)
