"""`dispatcher endpoint failures`, `retry` and `recover`: after a receiver has failed."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.admin.resources.job import RATE_DEFAULT
from dispatcher.cli.commands import CommandGroup
from dispatcher.cli.common import DryRun, Endpoint, Tenant, Yes, run_step
from dispatcher.cli.job import Rate, create_job
from dispatcher.cli.output import Column, Output, fail, say_data, say_fields, say_table, tell
from dispatcher.cli.resource_options import EndpointName
from dispatcher.cli.values import moment

if TYPE_CHECKING:
    from dispatcher.cli.session import Session

_FAILURE_COLUMNS = (
    Column("OUTCOME", "outcome"),
    Column("CODE", "response_code"),
    Column("FAILED", "failed_count"),
    Column("RETRYING", "retrying_count"),
)


def add_to(group: CommandGroup) -> None:
    """Add these commands to `dispatcher endpoint`."""
    group.command()(failures)
    group.command()(retry)
    group.command()(recover)


def failures(
    context: typer.Context, endpoint: Endpoint, output: Output, tenant: Tenant = None
) -> None:
    """Count an endpoint's failed and retrying deliveries by response.

    Examples:
      dispatcher endpoint failures ERP
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.endpoint_reader import EndpointReader

        endpoint_id = await session.id_of("endpoint", endpoint, tenant)
        answer = await EndpointReader(session.deployment).failures(session.actor, endpoint_id)
        if output.is_data:
            say_data(answer, output)
            return
        say_table(answer.responses, _FAILURE_COLUMNS, "no failures", output)
        if answer.capped:
            tell(
                "there are more; the newest 100 failed deliveries and the next 100 waiting ones are counted"
            )

    run_step(context, step)


def retry(
    context: typer.Context, endpoint: Endpoint, output: Output, tenant: Tenant = None
) -> None:
    """Send a waiting delivery now, and the others if it succeeds.

    Use it when the receiver is repaired: deferred deliveries and scheduled retries are then sent at once, within the
    endpoint's rate and concurrency. If the attempt fails, the schedule stays as it was, and the command exits with 1.

    Examples:
      dispatcher endpoint retry ERP
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.recovery import Recovery

        endpoint_id = await session.id_of("endpoint", endpoint, tenant)
        answer = await Recovery(session.deployment).retry(session.actor, endpoint_id)
        if output.is_data:
            say_data(answer, output)
        else:
            say_fields(answer, leave_out=("attempt", "capped"))
            if answer.attempt is not None:
                say_fields(answer.attempt, leave_out=("trigger", "flags"))
        if answer.state == "failed":
            fail("the attempt failed; the schedule is as it was")
            raise typer.Exit(1)
        if answer.state == "requested":
            tell("requested; the attempt is made as soon as a dispatcher runs")

    run_step(context, step)


def recover(
    context: typer.Context,
    endpoint: Endpoint,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="RFC 3339, or a time ago: 15m, 2h, 7d.")
    ],
    output: Output,
    tenant: Tenant = None,
    rate: Rate = RATE_DEFAULT,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Replay the deliveries that an endpoint missed since a time.

    These are the deliveries that failed, and those that a pause or a disabled endpoint cancelled. The command shows
    their number, asks for confirmation and creates a job.

    Examples:
      dispatcher endpoint recover ERP --since 2h --dry-run
      dispatcher endpoint recover ERP --since 7d --rate 50 --yes
    """
    filter_ = {
        "endpoint_id": EndpointName(endpoint),
        "tenant": tenant,
        "recoverable": True,
        "finished_since": moment(since, "--since"),
    }
    job = {"kind": "replay", "filter": filter_, "rate_per_second": rate}
    create_job(context, job, dry_run=dry_run, yes=yes, output=output)
