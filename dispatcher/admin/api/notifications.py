"""Notification rules over HTTP, for admins."""

from dispatcher.admin.api.route import PREFIX, ApiResponse, Call
from dispatcher.admin.resources.notification import (
    NewNotification,
    NotificationChange,
    NotificationsQuery,
)


async def list_notifications(call: Call, query: NotificationsQuery) -> ApiResponse:
    """List notification rules, newest first."""
    return ApiResponse(await call.operations.notifications.page(call.actor, query))


async def create_notification(call: Call, fields: NewNotification) -> ApiResponse:
    """Create a notification rule.

    It reports problems that begin from now on: one message when a problem starts, one when it ends, and
    digests in between if `digest_seconds` is set.
    """
    created = await call.operations.notifications.create(call.actor, fields)
    return ApiResponse(created, headers={"Location": f"{PREFIX}/notifications/{created.id}"})


async def show_notification(call: Call) -> ApiResponse:
    """Show a notification rule with the problems that it follows now."""
    return ApiResponse(await call.operations.notifications.show(call.actor, call.id))


async def change_notification(call: Call, fields: NotificationChange) -> ApiResponse:
    """Change a notification rule.

    An omitted field keeps its value. The tenant never changes.
    """
    return ApiResponse(await call.operations.notifications.update(call.actor, call.id, fields))


async def test_notification(call: Call) -> ApiResponse:
    """Send a test message by a notification rule.

    It is sent as other messages are, within some seconds; the response does not wait for it.
    """
    return ApiResponse(await call.operations.notifications.test(call.actor, call.id))


async def delete_notification(call: Call) -> ApiResponse:
    """Delete a notification rule; it sends no more messages."""
    await call.operations.notifications.delete(call.actor, call.id)
    return ApiResponse(None)
