"""`dispatcher notification`: messages to people about problems of endpoints."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.admin.resources.notification import (
    NewNotification,
    NotificationChange,
    NotificationsQuery,
)
from dispatcher.cli.commands import CommandGroup
from dispatcher.cli.common import Tenant, Yes, confirm, run_step
from dispatcher.cli.completion import complete_names
from dispatcher.cli.output import (
    Column,
    Output,
    age_column,
    say,
    say_fields,
    say_object,
    say_page,
    say_table,
    tell,
)
from dispatcher.cli.resource_options import Fields, takes

if TYPE_CHECKING:
    from dispatcher.admin.resources.notification import Notification, NotificationWithProblems
    from dispatcher.cli.session import Session

group = CommandGroup()

_Notification = Annotated[
    str,
    typer.Argument(
        metavar="NOTIFICATION",
        help="Its name or id.",
        autocompletion=complete_names("notification"),
    ),
]


def _columns(endpoint_names: Mapping[str, str]) -> tuple[Column, ...]:
    def target(row: "Notification") -> str | None:
        if row.to_endpoint_id is None:
            return row.email
        return endpoint_names.get(row.to_endpoint_id, row.to_endpoint_id)

    return (
        Column("NAME", "name", can_be_cut=True),
        Column("ID", "id", is_wide=True),
        Column("TENANT", "tenant", if_different=True),
        Column("TO", target, can_be_cut=True),
        Column("QUIET SECONDS", "quiet_seconds", is_wide=True),
        Column("DIGEST SECONDS", "digest_seconds", is_wide=True),
        Column("OPEN", "open_count"),
        age_column(),
    )


def _problem_columns() -> tuple[Column, ...]:
    return (
        Column("PROBLEM", "event_type"),
        Column("ENDPOINT", "endpoint_name", can_be_cut=True),
        Column("REASON", "reason", can_be_cut=True),
        Column("ANNOUNCED AT", "announced_at", is_wide=True),
        age_column("started_at"),
    )


@group.command()
@takes(NewNotification)
def create(context: typer.Context, fields: Fields, output: Output) -> None:
    """Create a notification.

    It sends a message when a problem of an endpoint starts, and one when it ends.

    Examples:
      dispatcher notification create --name on-call --to-endpoint-id ops-chat
      dispatcher notification create --name mail --email ops@example.com
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.notifications import NotificationOperations

        new = NewNotification.of(**await session.resolved(fields))
        answer = await NotificationOperations(session.deployment).create(session.actor, new)
        say_object(answer, output=output)

    run_step(context, step)


def _say_rule(rule: "NotificationWithProblems") -> None:
    say_fields(rule, leave_out=("problems",))
    if rule.problems:
        say()
        say_table(rule.problems, _problem_columns(), "")


@group.command("list")
@takes(NotificationsQuery)
def page(context: typer.Context, fields: Fields, output: Output) -> None:
    """List notifications, newest first.

    OPEN is the number of problems that the notification follows now.

    Examples:
      dispatcher notification list
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.notifications import NotificationOperations

        answer = await NotificationOperations(session.deployment).page(
            session.actor, NotificationsQuery.of(**fields)
        )
        names = await session.endpoint_names(one.to_endpoint_id for one in answer.items)
        say_page(answer, _columns(names), output=output, empty="no notifications")

    run_step(context, step)


@group.command()
def show(
    context: typer.Context, notification: _Notification, output: Output, tenant: Tenant = None
) -> None:
    """Show a notification.

    Examples:
      dispatcher notification show on-call
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.notifications import NotificationOperations

        notification_id = await session.id_of("notification", notification, tenant)
        answer = await NotificationOperations(session.deployment).show(
            session.actor, notification_id
        )
        say_object(answer, output=output, human=_say_rule)

    run_step(context, step)


@group.command()
@takes(NotificationChange)
def update(
    context: typer.Context,
    notification: _Notification,
    fields: Fields,
    output: Output,
    tenant: Tenant = None,
) -> None:
    """Change a notification.

    An omitted option keeps its value. `none` resets a value to its default.

    Examples:
      dispatcher notification update on-call --quiet-seconds 3600
    """
    if not fields:
        raise typer.BadParameter("nothing to change. Give an option.", param_hint="update")

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.notifications import NotificationOperations

        notification_id = await session.id_of("notification", notification, tenant)
        change = NotificationChange.of(**await session.resolved(fields, tenant))
        answer = await NotificationOperations(session.deployment).update(
            session.actor, notification_id, change
        )
        say_object(answer, output=output)

    run_step(context, step)


@group.command("test")
def send_test(
    context: typer.Context, notification: _Notification, output: Output, tenant: Tenant = None
) -> None:
    """Send a test message.

    A running daemon sends it within some seconds.

    Examples:
      dispatcher notification test on-call
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.notifications import NotificationOperations

        notification_id = await session.id_of("notification", notification, tenant)
        answer = await NotificationOperations(session.deployment).test(
            session.actor, notification_id
        )
        say_object(answer, output=output, human=lambda _: tell("the test message is queued"))

    run_step(context, step)


@group.command()
def delete(
    context: typer.Context, notification: _Notification, tenant: Tenant = None, yes: Yes = False
) -> None:
    """Delete a notification.

    Examples:
      dispatcher notification delete on-call --yes
    """
    confirm(f"Delete {notification}?", yes=yes)

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.notifications import NotificationOperations

        notification_id = await session.id_of("notification", notification, tenant)
        await NotificationOperations(session.deployment).delete(session.actor, notification_id)
        tell(f"deleted {notification_id}")

    run_step(context, step)
