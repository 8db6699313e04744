"""`dispatcher endpoint preview`, `preview-update` and `test`: the requests that an endpoint gets."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.admin.resources.endpoint_requests import EndpointChange, NewEndpoint
from dispatcher.cli.commands import CommandGroup
from dispatcher.cli.common import Endpoint, Tenant, run_step
from dispatcher.cli.completion import complete_event_types
from dispatcher.cli.output import Output, fail, say, say_data, say_fields
from dispatcher.cli.resource_options import Fields, takes
from dispatcher.cli.values import text_or_file

if TYPE_CHECKING:
    from dispatcher.admin.resources.request_preview import PreviewedRequest
    from dispatcher.cli.session import Session


def add_to(group: CommandGroup) -> None:
    """Add these commands to `dispatcher endpoint`."""
    group.command()(preview)
    group.command("preview-update")(preview_update)
    group.command("test")(send_test)


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
