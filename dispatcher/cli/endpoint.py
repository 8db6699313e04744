"""`dispatcher endpoint`: manage endpoints. The modules `endpoint_*` add the other commands."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from typing import TYPE_CHECKING

import typer

from dispatcher.admin.resources.endpoint_requests import EndpointChange, EndpointsQuery, NewEndpoint
from dispatcher.cli import endpoint_file, endpoint_recovery, endpoint_requests, endpoint_secrets
from dispatcher.cli.commands import CommandGroup
from dispatcher.cli.common import Endpoint, Tenant, Yes, confirm, run_step
from dispatcher.cli.output import Column, Output, age_column, say_object, say_page, tell, warn
from dispatcher.cli.resource_options import Fields, takes

if TYPE_CHECKING:
    from dispatcher.admin.resources.endpoint import ChangedEndpoint
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


for _part in (endpoint_requests, endpoint_recovery, endpoint_secrets, endpoint_file):
    _part.add_to(group)
