"""`dispatcher endpoint`: manage endpoints and their secrets."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dispatcher.admin.resources.endpoint_requests import EndpointChange, EndpointsQuery, NewEndpoint
from dispatcher.admin.resources.job import RATE_DEFAULT
from dispatcher.cli import configuration
from dispatcher.cli.commands import CommandGroup
from dispatcher.cli.common import DryRun, Endpoint, Tenant, Yes, confirm, run_step
from dispatcher.cli.completion import complete_event_types
from dispatcher.cli.job import Rate, create_job
from dispatcher.cli.output import (
    Column,
    Output,
    age_column,
    fail,
    say,
    say_data,
    say_fields,
    say_object,
    say_page,
    say_table,
    tell,
    warn,
)
from dispatcher.cli.resource_options import EndpointName, Fields, takes
from dispatcher.cli.values import NONE, moment, secret_text, text_or_file

if TYPE_CHECKING:
    from dispatcher.admin.resources.endpoint import ChangedEndpoint
    from dispatcher.admin.resources.request_preview import PreviewedRequest
    from dispatcher.cli.session import Session

group = CommandGroup()


def _columns() -> tuple[Column, ...]:
    return (
        Column("NAME", "name", can_be_cut=True),
        Column("ID", "id", is_wide=True),
        Column("TENANT", "tenant", if_different=True),
        Column("STATE", "state", is_state=True),
        Column("HEALTH", "health", is_state=True),
        Column("WAITING", "waiting_count"),
        Column("PROFILE", "profile", is_wide=True),
        Column("EVENT TYPES", "event_types", can_be_cut=True),
        Column("URL", "url", is_wide=True),
        age_column(),
    )


_FAILURE_COLUMNS = (
    Column("OUTCOME", "outcome"),
    Column("CODE", "response_code"),
    Column("FAILED", "failed_count"),
    Column("RETRYING", "retrying_count"),
)


def _warn(endpoint: "ChangedEndpoint") -> None:
    for warning in endpoint.warnings:
        warn(warning)


@group.command()
@takes(NewEndpoint)
def create(context: typer.Context, fields: Fields, output: Output) -> None:
    r"""Create an endpoint and show its secret.

    Examples:
      dispatcher endpoint create --name ERP --url https://example.com/hooks \
        --event-types 'order.*'
      dispatcher endpoint create --name HR --url https://example.com/hr \
        --profile humansoft --event-types employee.create --headers X-Team=hr
      dispatcher endpoint create --name CRM --url https://example.com/crm \
        --profile standard --event-types 'order.*' --key-type ed25519
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.endpoints import Endpoints

        endpoints = Endpoints(session.deployment)
        answer = await endpoints.create(session.actor, endpoints.read_new(session.actor, fields))
        _warn(answer)
        say_object(answer, output=output)

    run_step(context, step)


@group.command()
@takes(NewEndpoint)
def preview(context: typer.Context, fields: Fields, output: Output) -> None:
    r"""Show the request that a new endpoint would get.

    The options are those of `create`. Nothing is stored or sent.

    Examples:
      dispatcher endpoint preview --name ERP --url https://example.com/hooks \
        --event-types order.created --exclude customer.email
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.request_preview import RequestPreviews

        answer = RequestPreviews(session.deployment).preview(session.actor, fields)
        _say_request(answer, output)

    run_step(context, step)


@group.command("preview-update")
@takes(EndpointChange)
def preview_update(
    context: typer.Context,
    endpoint: Endpoint,
    fields: Fields,
    output: Output,
    tenant: Tenant = None,
) -> None:
    r"""Show the request that an endpoint would get after a change.

    The options are those of `update`. An omitted option keeps its value. Nothing is stored or sent.

    Examples:
      dispatcher endpoint preview-update ERP --exclude customer.email
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.request_preview import RequestPreviews

        endpoint_id = await session.id_of("endpoint", endpoint, tenant)
        previews = RequestPreviews(session.deployment)
        answer = await previews.preview_change(session.actor, endpoint_id, fields)
        _say_request(answer, output)

    run_step(context, step)


def _say_request(request: "PreviewedRequest", output: Output) -> None:
    if output.is_data:
        say_data(request, output)
        return
    say(f"{request.method} {request.url}")
    for name, value in request.headers:
        say(f"{name}: {value}")
    say(f"\n{request.body}")


@group.command("list")
@takes(EndpointsQuery)
def page(context: typer.Context, fields: Fields, output: Output) -> None:
    """List endpoints, newest first.

    WAITING is the number of deliveries that are not sent yet. Secrets are masked.

    Examples:
      dispatcher endpoint list
      dispatcher endpoint list --health down -o wide
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.endpoints import Endpoints

        answer = await Endpoints(session.deployment).page(
            session.actor, EndpointsQuery.of(**fields)
        )
        say_page(
            answer,
            _columns(),
            output=output,
            empty="no endpoints; create one with `dispatcher endpoint create`",
        )

    run_step(context, step)


@group.command()
def show(context: typer.Context, endpoint: Endpoint, output: Output, tenant: Tenant = None) -> None:
    """Show an endpoint; its secret is masked.

    Examples:
      dispatcher endpoint show ERP
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.endpoints import Endpoints

        endpoint_id = await session.id_of("endpoint", endpoint, tenant)
        answer = await Endpoints(session.deployment).show(session.actor, endpoint_id)
        say_object(answer, output=output)

    run_step(context, step)


@group.command()
@takes(EndpointChange)
def update(
    context: typer.Context,
    endpoint: Endpoint,
    fields: Fields,
    output: Output,
    tenant: Tenant = None,
) -> None:
    """Change an endpoint.

    An omitted option keeps its value. Lists and maps are replaced as a whole. `none` resets a value to its default.

    Examples:
      dispatcher endpoint update ERP --url https://example.com/new
      dispatcher endpoint update ERP --rate-limit 5 --timeout-seconds none
    """
    if not fields:
        raise typer.BadParameter("nothing to change. Give an option.", param_hint="update")

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.endpoints import Endpoints

        endpoints = Endpoints(session.deployment)
        endpoint_id = await session.id_of("endpoint", endpoint, tenant)
        change = await endpoints.read_change(session.actor, endpoint_id, fields)
        answer = await endpoints.update(session.actor, endpoint_id, change)
        _warn(answer)
        say_object(answer, output=output)

    run_step(context, step)


@group.command()
def delete(
    context: typer.Context, endpoint: Endpoint, tenant: Tenant = None, yes: Yes = False
) -> None:
    """Delete an endpoint and cancel its waiting deliveries.

    Its secret is destroyed. Its history stays readable.

    Examples:
      dispatcher endpoint delete ERP --yes
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.endpoints import Endpoints

        endpoints = Endpoints(session.deployment)
        endpoint_id = await session.id_of("endpoint", endpoint, tenant)
        shown = await endpoints.show(session.actor, endpoint_id)
        waiting = await endpoints.waiting(session.actor, endpoint_id)
        count = f"{waiting.waiting_count}{' or more' if waiting.capped else ''}"
        confirm(
            f"Delete {shown.name} ({endpoint_id})? {count} waiting deliveries are cancelled.",
            yes=yes,
        )
        await endpoints.delete(session.actor, endpoint_id)
        tell(f"deleted {shown.name} ({endpoint_id})")

    run_step(context, step)


@group.command()
def pause(
    context: typer.Context, endpoint: Endpoint, output: Output, tenant: Tenant = None
) -> None:
    """Pause an endpoint; its deliveries wait.

    Examples:
      dispatcher endpoint pause ERP
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.endpoints import Endpoints

        endpoint_id = await session.id_of("endpoint", endpoint, tenant)
        answer = await Endpoints(session.deployment).pause(session.actor, endpoint_id)
        say_object(answer, output=output)

    run_step(context, step)


@group.command()
def resume(
    context: typer.Context, endpoint: Endpoint, output: Output, tenant: Tenant = None
) -> None:
    """Resume a paused or disabled endpoint.

    Its waiting deliveries are sent, oldest first.

    Examples:
      dispatcher endpoint resume ERP
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.endpoints import Endpoints

        endpoint_id = await session.id_of("endpoint", endpoint, tenant)
        answer = await Endpoints(session.deployment).resume(session.actor, endpoint_id)
        say_object(answer, output=output)

    run_step(context, step)


@group.command()
def failures(
    context: typer.Context, endpoint: Endpoint, output: Output, tenant: Tenant = None
) -> None:
    """Count an endpoint's failed and retrying deliveries by response.

    Examples:
      dispatcher endpoint failures ERP
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.endpoints import Endpoints

        endpoint_id = await session.id_of("endpoint", endpoint, tenant)
        answer = await Endpoints(session.deployment).failures(session.actor, endpoint_id)
        if output.is_data:
            say_data(answer, output)
            return
        say_table(answer.responses, _FAILURE_COLUMNS, "no failures", output)
        if answer.capped:
            tell("there are more; at most 1,000 failed and 1,000 waiting deliveries are counted")

    run_step(context, step)


@group.command()
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


@group.command()
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


@group.command("rotate-secret")
def rotate_secret(
    context: typer.Context,
    endpoint: Endpoint,
    output: Output,
    tenant: Tenant = None,
    secret: Annotated[
        str | None,
        typer.Option(metavar="SECRET", help="-, @FILE or env:NAME. Default: generated."),
    ] = None,
    key_type: Annotated[
        Literal["hmac", "ed25519"] | None,
        typer.Option(
            "--key-type",
            metavar="hmac|ed25519",
            help="The kind of the generated secret. Default: that of the present one.",
        ),
    ] = None,
    overlap_seconds: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="How long the old secret also signs, 0 to 604800 (standard; default 86400).",
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
) -> None:
    """Rotate an endpoint's secret; the new one is shown once.

    Under standard and stripe, requests are signed with both secrets until the overlap ends. Under wms and
    humansoft there is room for one signature: stage the new secret, give it to the receiver, then activate it.

    Examples:
      dispatcher endpoint rotate-secret ERP
      dispatcher endpoint rotate-secret ERP --activate-staged
    """
    if activate_staged and (
        secret is not None
        or key_type is not None
        or overlap_seconds is not None
        or activate is not None
    ):
        raise typer.BadParameter(
            "conflicts with the other options. Give it alone.", param_hint="--activate-staged"
        )
    if secret == NONE:
        raise typer.BadParameter(
            "a rotation needs a secret. Omit the option to generate one.", param_hint="--secret"
        )
    new_secret = None if secret is None else secret_text(secret, "--secret")

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.rotation import Rotation

        rotation = Rotation(session.deployment)
        endpoint_id = await session.id_of("endpoint", endpoint, tenant)
        if activate_staged:
            say_object(await rotation.activate_staged(session.actor, endpoint_id), output=output)
            return
        answer = await rotation.rotate(
            session.actor,
            endpoint_id,
            new_secret=new_secret,
            key_type=key_type,
            overlap_seconds=overlap_seconds,
            activate=activate,
        )
        say_object(answer, output=output)
        if answer.state == "staged":
            tell(
                f"staged; once the receiver has it: dispatcher endpoint rotate-secret {endpoint_id} --activate-staged"
            )

    run_step(context, step)


@group.command("secret")
def reveal(
    context: typer.Context, endpoint: Endpoint, output: Output, tenant: Tenant = None
) -> None:
    """Show an endpoint's secret in full; the audit log records it.

    Examples:
      dispatcher endpoint secret ERP
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.rotation import Rotation

        endpoint_id = await session.id_of("endpoint", endpoint, tenant)
        answer = await Rotation(session.deployment).reveal(session.actor, endpoint_id)
        if output.is_data:
            say_data(answer, output)
        elif answer.public_key is not None and answer.secret is None:
            say(answer.public_key)
            tell("receivers verify with this public key; the private key is never shown")
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
    endpoint: Endpoint,
    output: Output,
    tenant: Tenant = None,
    event_type: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="Default: the first type that the endpoint subscribes to.",
            autocompletion=complete_event_types,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="JSON", help="An object, @FILE or -. Default: the sample of the catalogue."
        ),
    ] = None,
) -> None:
    r"""Send a test event now and show the receiver's response.

    It makes one attempt. The command exits with 1 unless the receiver responds with success.

    Examples:
      dispatcher endpoint test ERP
      dispatcher endpoint test ERP --event-type order.created \
        --data '{"order_id": "1"}'
    """
    text = None if data is None else text_or_file(data, "--data")

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.test_events import EventTester
        from dispatcher.cli.session import open_http_client

        endpoint_id = await session.id_of("endpoint", endpoint, tenant)
        async with open_http_client(session.deployment.settings) as http_client:
            answer = await EventTester(session.deployment, http_client).send(
                session.actor, endpoint_id, event_type=event_type, data=text
            )
        if output.is_data:
            say_data(answer, output)
        else:
            say_fields(answer, leave_out=("attempts", "schedule_position", "next_attempt_at"))
            say_fields(answer.attempts[0], leave_out=("attempt_number", "trigger"))
        if answer.state != "succeeded":
            fail("the receiver did not respond with success")
            raise typer.Exit(1)

    run_step(context, step)


configuration.add_to(group)
