"""`dispatcher notification`: messages to people about problems of endpoints."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.admin.resources.notification import (
    NewNotification,
    NotificationChange,
    NotificationsQuery,
)
from dispatcher.cli.common import Json, Yes, run_step
from dispatcher.cli.output import say_fields, say_object, say_page, say_table, tell
from dispatcher.cli.resource_options import Fields, takes

if TYPE_CHECKING:
    from dispatcher.admin.resources.notification import NotificationWithProblems
    from dispatcher.cli.session import Session

group = typer.Typer(
    no_args_is_help=True,
    help="Messages to people about problems of endpoints: create, list, show, update, test, delete.",
)

_COLUMNS = ("id", "name", "tenant", "to_endpoint_id", "email", "quiet_seconds", "open_count")
_PROBLEM_COLUMNS = ("event_type", "endpoint_name", "started_at", "announced_at", "reason")
_Id = Annotated[str, typer.Argument(metavar="ID", help="The notification's id, ntf_…")]


@group.command()
@takes(NewNotification)
def create(context: typer.Context, fields: Fields, as_json: Json = False) -> None:
    """Create a notification: a message when a problem starts, and one when it ends.

    Examples:
      dispatcher notification create --name on-call --to-endpoint-id ep_01kat9zma1e4gbryhh3m9dq2yw

      dispatcher notification create --name mail --email ops@example.com --digest-seconds 3600
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.notifications import NotificationOperations

        answer = await NotificationOperations(session.deployment).create(
            session.actor, NewNotification.of(**fields)
        )
        say_object(answer, as_json=as_json, human=say_fields)

    run_step(context, step)


def _say_rule(rule: "NotificationWithProblems") -> None:
    say_fields(rule, leave_out=("problems",))
    if rule.problems:
        say_table(rule.problems, _PROBLEM_COLUMNS, "")


@group.command("list")
@takes(NotificationsQuery)
def page(context: typer.Context, fields: Fields, as_json: Json = False) -> None:
    """List notifications, newest first.

    Example:  dispatcher notification list
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.notifications import NotificationOperations

        answer = await NotificationOperations(session.deployment).page(
            session.actor, NotificationsQuery.of(**fields)
        )
        say_page(answer, _COLUMNS, as_json=as_json, empty="no notifications")

    run_step(context, step)


@group.command()
def show(context: typer.Context, notification_id: _Id, as_json: Json = False) -> None:
    """Show a notification.

    Example:  dispatcher notification show ntf_01kat9zma1e4gbryhh3m9dq2yw
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.notifications import NotificationOperations

        answer = await NotificationOperations(session.deployment).show(
            session.actor, notification_id
        )
        say_object(answer, as_json=as_json, human=_say_rule)

    run_step(context, step)


@group.command()
@takes(NotificationChange)
def update(
    context: typer.Context, notification_id: _Id, fields: Fields, as_json: Json = False
) -> None:
    """Change a notification; an omitted option keeps its value.

    Example:  dispatcher notification update ntf_01kat9zma1e4gbryhh3m9dq2yw --quiet-seconds 3600
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.notifications import NotificationOperations

        answer = await NotificationOperations(session.deployment).update(
            session.actor, notification_id, NotificationChange.of(**fields)
        )
        say_object(answer, as_json=as_json, human=say_fields)

    run_step(context, step)


@group.command("test")
def send_test(context: typer.Context, notification_id: _Id, as_json: Json = False) -> None:
    """Send a test message; a running daemon sends it within some seconds.

    Example:  dispatcher notification test ntf_01kat9zma1e4gbryhh3m9dq2yw
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.notifications import NotificationOperations

        answer = await NotificationOperations(session.deployment).test(
            session.actor, notification_id
        )
        say_object(answer, as_json=as_json, human=lambda _: tell("the test message is queued"))

    run_step(context, step)


@group.command()
def delete(context: typer.Context, notification_id: _Id, yes: Yes = False) -> None:
    """Delete a notification.

    Example:  dispatcher notification delete ntf_01kat9zma1e4gbryhh3m9dq2yw --yes
    """
    if not yes:
        typer.confirm(f"Delete {notification_id}?", abort=True, err=True)

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.notifications import NotificationOperations

        await NotificationOperations(session.deployment).delete(session.actor, notification_id)
        tell(f"{notification_id} is deleted")

    run_step(context, step)
