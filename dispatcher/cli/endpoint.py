"""`dispatcher endpoint`: manage endpoints and their secrets."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.admin.resources.endpoint import EndpointChange, EndpointsQuery, NewEndpoint
from dispatcher.admin.resources.job import RATE_DEFAULT
from dispatcher.cli.common import Json, Yes, run_step
from dispatcher.cli.job import DryRun, Rate, create_job
from dispatcher.cli.output import (
    fail,
    say,
    say_fields,
    say_json,
    say_object,
    say_page,
    say_table,
    tell,
)
from dispatcher.cli.resource_options import Fields, takes
from dispatcher.cli.values import moment, secret_text, text_or_file

if TYPE_CHECKING:
    from dispatcher.admin.resources.endpoint import ChangedEndpoint
    from dispatcher.cli.session import Session

group = typer.Typer(
    no_args_is_help=True, help="Endpoints: create, list, change, pause, test; manage their secrets."
)

Id = Annotated[str, typer.Argument(metavar="ID", help="The endpoint's id, ep_…")]

_COLUMNS = (
    "id", "name", "state", "health", "waiting_count", "profile", "url", "event_types", "tenant",
)  # fmt: skip


_FAILURE_COLUMNS = ("outcome", "response_code", "failed_count", "retrying_count")


def _warn(endpoint: "ChangedEndpoint") -> None:
    for warning in endpoint.warnings:
        tell(f"warning: {warning}")


@group.command()
@takes(NewEndpoint)
def create(context: typer.Context, fields: Fields, as_json: Json = False) -> None:
    """Create an endpoint and show its secret.

    Examples:
      dispatcher endpoint create --name erp --url https://example.com/hooks --event-types 'order.*'

      dispatcher endpoint create --name hr --profile humansoft --url https://example.com/hr
      --event-types employee.create --event-types employee.terminate --headers X-Team=hr
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.endpoints import Endpoints

        endpoints = Endpoints(session.deployment)
        answer = await endpoints.create(session.actor, endpoints.read_new(session.actor, fields))
        _warn(answer)
        say_object(answer, as_json=as_json)

    run_step(context, step)


@group.command("list")
@takes(EndpointsQuery)
def page(context: typer.Context, fields: Fields, as_json: Json = False) -> None:
    """List endpoints, newest first; secrets are masked.

    Examples:
      dispatcher endpoint list

      dispatcher endpoint list --state disabled --json
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.endpoints import Endpoints

        answer = await Endpoints(session.deployment).page(
            session.actor, EndpointsQuery.of(**fields)
        )
        say_page(
            answer,
            _COLUMNS,
            as_json=as_json,
            empty="no endpoints; create one with `dispatcher endpoint create`",
        )

    run_step(context, step)


@group.command()
def show(context: typer.Context, endpoint_id: Id, as_json: Json = False) -> None:
    """Show an endpoint; its secret is masked.

    Example:  dispatcher endpoint show ep_01kat9zma1e4gbryhh3m9dq2yw
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.endpoints import Endpoints

        say_object(
            await Endpoints(session.deployment).show(session.actor, endpoint_id), as_json=as_json
        )

    run_step(context, step)


@group.command()
@takes(EndpointChange)
def update(context: typer.Context, endpoint_id: Id, fields: Fields, as_json: Json = False) -> None:
    """Change the given fields; lists and maps are replaced as a whole, `none` resets a limit to its default.

    Examples:
      dispatcher endpoint update ep_01kat9zma1e4gbryhh3m9dq2yw --url https://example.com/new

      dispatcher endpoint update ep_01kat9zma1e4gbryhh3m9dq2yw --rate-limit 5 --timeout-seconds none
    """
    if not fields:
        raise typer.BadParameter("name at least one option to change", param_hint="update")

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.endpoints import Endpoints

        endpoints = Endpoints(session.deployment)
        change = await endpoints.read_change(session.actor, endpoint_id, fields)
        answer = await endpoints.update(session.actor, endpoint_id, change)
        _warn(answer)
        say_object(answer, as_json=as_json)

    run_step(context, step)


@group.command()
def delete(context: typer.Context, endpoint_id: Id, yes: Yes = False) -> None:
    """Delete an endpoint: cancel its waiting deliveries and destroy its secret; its history is kept.

    Example:  dispatcher endpoint delete ep_01kat9zma1e4gbryhh3m9dq2yw --yes
    """
    if not yes:
        typer.confirm(
            f"Delete {endpoint_id}? Its waiting deliveries are cancelled", abort=True, err=True
        )

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.endpoints import Endpoints

        await Endpoints(session.deployment).delete(session.actor, endpoint_id)
        tell(f"deleted {endpoint_id}")

    run_step(context, step)


@group.command()
def pause(context: typer.Context, endpoint_id: Id, as_json: Json = False) -> None:
    """Pause an endpoint: its deliveries wait until it is resumed.

    Example:  dispatcher endpoint pause ep_01kat9zma1e4gbryhh3m9dq2yw
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.endpoints import Endpoints

        say_object(
            await Endpoints(session.deployment).pause(session.actor, endpoint_id), as_json=as_json
        )

    run_step(context, step)


@group.command()
def resume(context: typer.Context, endpoint_id: Id, as_json: Json = False) -> None:
    """Resume a paused or disabled endpoint; its waiting deliveries are sent, oldest first.

    Example:  dispatcher endpoint resume ep_01kat9zma1e4gbryhh3m9dq2yw
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.endpoints import Endpoints

        say_object(
            await Endpoints(session.deployment).resume(session.actor, endpoint_id), as_json=as_json
        )

    run_step(context, step)


@group.command()
def failures(
    context: typer.Context,
    endpoint: Annotated[
        str, typer.Argument(metavar="ID|NAME", help="The endpoint's id, ep_…, or its name.")
    ],
    as_json: Json = False,
) -> None:
    """Count the failed and the retrying deliveries of an endpoint by their last response.

    Examples:
      dispatcher endpoint failures ep_01kat9zma1e4gbryhh3m9dq2yw

      dispatcher endpoint failures erp
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.endpoints import Endpoints

        endpoints = Endpoints(session.deployment)
        endpoint_id = await endpoints.id_of(session.actor, endpoint)
        answer = await endpoints.failures(session.actor, endpoint_id)
        if as_json:
            say_json(answer)
            return
        say_table(answer.responses, _FAILURE_COLUMNS, "no failures")
        if answer.capped:
            tell("there are more; at most 1,000 failed and 1,000 waiting deliveries are counted")

    run_step(context, step)


@group.command()
def retry(
    context: typer.Context,
    endpoint: Annotated[
        str, typer.Argument(metavar="ID|NAME", help="The endpoint's id, ep_…, or its name.")
    ],
    as_json: Json = False,
) -> None:
    """Send a waiting delivery now; if the receiver accepts it, send everything that waits.

    Use it when the receiver is repaired: deferred deliveries and scheduled retries are then sent at once, within the
    endpoint's rate and concurrency. If the attempt fails, the schedule stays as it was, and the command exits with 1.

    Examples:
      dispatcher endpoint retry ep_01kat9zma1e4gbryhh3m9dq2yw

      dispatcher endpoint retry erp
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.endpoints import Endpoints
        from dispatcher.admin.operations.recovery import Recovery

        endpoint_id = await Endpoints(session.deployment).id_of(session.actor, endpoint)
        answer = await Recovery(session.deployment).retry(session.actor, endpoint_id)
        if as_json:
            say_json(answer)
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


@group.command()
def recover(
    context: typer.Context,
    endpoint: Annotated[
        str, typer.Argument(metavar="ENDPOINT", help="The endpoint's id or its name.")
    ],
    since: Annotated[
        str, typer.Option(metavar="TIME", help="RFC 3339, or a time ago: 15m, 2h, 7d.")
    ],
    rate: Rate = RATE_DEFAULT,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Replay the deliveries that failed since a time, and those that a pause or a disabled endpoint cancelled.

    Examples:
      dispatcher endpoint recover erp --since 2h --dry-run

      dispatcher endpoint recover ep_01kat9zma1e4gbryhh3m9dq2yw --since 7d --rate 50 --yes
    """
    filter_ = {
        "endpoint_id": endpoint,
        "recoverable": True,
        "finished_since": moment(since, "--since"),
    }
    job = {"kind": "replay", "filter": filter_, "rate_per_second": rate}
    create_job(context, job, dry_run=dry_run, yes=yes, as_json=as_json)


@group.command("rotate-secret")
def rotate_secret(
    context: typer.Context,
    endpoint_id: Id,
    secret: Annotated[
        str | None, typer.Option(metavar="-|@FILE|env:NAME", help="Default: generated.")
    ] = None,
    overlap_seconds: Annotated[
        float | None,
        typer.Option(
            help="How long the old secret also signs, 0 to 604800 (standard; default 86400)."
        ),
    ] = None,
    activate: Annotated[
        bool | None,
        typer.Option(
            "--activate/--stage", help="Switch at once, or stage the new secret (wms, humansoft)."
        ),
    ] = None,
    activate_staged: Annotated[
        bool, typer.Option("--activate-staged", help="Switch to the staged secret.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Rotate an endpoint's secret; the new one is shown once.

    Under standard and stripe, requests are signed with both secrets until the overlap ends. Under wms and
    humansoft there is room for one signature: stage the new secret, give it to the receiver, then activate it.

    Examples:
      dispatcher endpoint rotate-secret ep_01kat9zma1e4gbryhh3m9dq2yw

      dispatcher endpoint rotate-secret ep_01kat9zma1e4gbryhh3m9dq2yw --activate-staged
    """
    if activate_staged and (
        secret is not None or overlap_seconds is not None or activate is not None
    ):
        raise typer.BadParameter("goes without other options", param_hint="--activate-staged")
    new_secret = None if secret is None else secret_text(secret, "--secret")

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.rotation import Rotation

        rotation = Rotation(session.deployment)
        if activate_staged:
            say_object(await rotation.activate_staged(session.actor, endpoint_id), as_json=as_json)
            return
        answer = await rotation.rotate(
            session.actor,
            endpoint_id,
            new_secret=new_secret,
            overlap_seconds=overlap_seconds,
            activate=activate,
        )
        say_object(answer, as_json=as_json)
        if answer.state == "staged":
            tell(
                f"staged; once the receiver has it: dispatcher endpoint rotate-secret {endpoint_id} --activate-staged"
            )

    run_step(context, step)


@group.command("secret")
def reveal(context: typer.Context, endpoint_id: Id, as_json: Json = False) -> None:
    """Show an endpoint's secret in full; the audit log records it.

    Example:  dispatcher endpoint secret ep_01kat9zma1e4gbryhh3m9dq2yw
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.rotation import Rotation

        answer = await Rotation(session.deployment).reveal(session.actor, endpoint_id)
        if as_json:
            say_json(answer)
        elif answer.secret is None:
            tell("this endpoint is unsigned: it has no secret")
        else:
            say(answer.secret)
            if answer.staged_secret is not None:
                tell(f"staged: {answer.staged_secret}")

    run_step(context, step)


@group.command("test")
def send_test(
    context: typer.Context,
    endpoint_id: Id,
    event_type: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE", help="Default: the first type that the endpoint subscribes to."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="JSON|@FILE|-", help="Default: the sample of the catalogue."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Send a test event now, with one attempt, and show the receiver's response.

    Exits with 1 unless the receiver responds with success.

    Examples:
      dispatcher endpoint test ep_01kat9zma1e4gbryhh3m9dq2yw

      dispatcher endpoint test ep_01kat9zma1e4gbryhh3m9dq2yw --event-type order.created --data '{"order_id": "1"}'
    """
    text = None if data is None else text_or_file(data, "--data")

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.test_events import EventTester
        from dispatcher.cli.session import open_http_client

        async with open_http_client(session.deployment.settings) as http_client:
            answer = await EventTester(session.deployment, http_client).send(
                session.actor, endpoint_id, event_type=event_type, data=text
            )
        if as_json:
            say_json(answer)
        else:
            say_fields(answer, leave_out=("attempts", "schedule_position", "next_attempt_at"))
            say_fields(answer.attempts[0], leave_out=("attempt_number", "trigger"))
        if answer.state != "succeeded":
            fail("the receiver did not respond with success")
            raise typer.Exit(1)

    run_step(context, step)
