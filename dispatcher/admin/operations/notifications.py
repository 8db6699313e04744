"""Notification rules: created, listed, tried, deleted. All of it needs an admin: rules hold addresses of people."""

import dataclasses
import secrets
from datetime import datetime
from typing import TYPE_CHECKING, Final

from dispatcher.admin.operations.changes import change_detail
from dispatcher.admin.operations.context import ALL_TENANTS, Actor, Deployment, Role, allowed_tenant
from dispatcher.admin.resources.notification import (
    NewNotification,
    Notification,
    NotificationChange,
    NotificationPage,
    NotificationProblem,
    NotificationSettings,
    NotificationsQuery,
    NotificationWithProblems,
)
from dispatcher.admin.resources.serialization import (
    Place,
    cursor_scope,
    page_of,
    read_cursor,
    time_text,
)
from dispatcher.core import ids
from dispatcher.core.errors import ConflictError, InvalidRequestError, NotFoundError
from dispatcher.core.model import EndpointId
from dispatcher.core.notifying import Message, Rule
from dispatcher.core.problems import Problem, problem
from dispatcher.core.profile import FieldSource
from dispatcher.core.profile_parser import flattened
from dispatcher.store import endpoints as endpoint_store
from dispatcher.store import notifications as store
from dispatcher.store.audit import write_audit
from dispatcher.store.endpoints import EndpointDetail
from dispatcher.store.notifications import NotificationDetail, OpenProblem

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

NOTIFICATIONS_MAX: Final = 500
"""A turn reads all rules."""
PROBLEMS_MAX: Final = 100
"""Problems that a rule is shown with."""


class NotificationOperations:
    """The notification rules of a deployment."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._database = deployment.database

    async def create(self, actor: Actor, new: NewNotification) -> Notification:
        """Create a rule; it reports problems that begin from now on.

        Without a tenant it is for the actor's own, or for all of them if the actor has none.

        Raises:
            ForbiddenError: no admin. InvalidRequestError: every fault. NotFoundError: the tenant is not
            the actor's. ConflictError: the name is in use, or there are too many rules.
        """
        actor.require(Role.ADMIN)
        tenant = allowed_tenant(actor, new.tenant)
        now = self._deployment.clock.now()
        notification_id = ids.new_id(
            ids.NOTIFICATION_PREFIX,
            int(now.timestamp() * 1000),
            secrets.token_bytes(ids.RANDOMNESS_BYTES),
        )
        async with self._database.transaction() as connection:
            await self._require_target(connection, new, tenant)
            count = await store.count_notifications(connection, NOTIFICATIONS_MAX)
            if count >= NOTIFICATIONS_MAX:
                raise ConflictError(
                    problem("name", "too_many_notifications", maximum=NOTIFICATIONS_MAX)
                )
            created_at = await store.insert_notification(
                connection,
                [
                    notification_id, new.name, tenant, new.event_types, new.endpoint_ids,
                    new.to_endpoint_id, new.email, new.recipient, new.quiet_seconds,
                    new.digest_seconds, actor.name,
                ],
                new.name,
            )  # fmt: skip
            await write_audit(
                connection,
                actor.name,
                tenant or ALL_TENANTS,
                "notification.create",
                notification_id,
                {"name": new.name, "to_endpoint_id": new.to_endpoint_id},
            )
        return _notification(
            NotificationDetail(
                notification_id, new.name, tenant, new.event_types, new.endpoint_ids,
                new.to_endpoint_id, new.email, new.recipient, new.quiet_seconds, new.digest_seconds,
                created_at, actor.name, created_at, 0,
            )
        )  # fmt: skip

    async def update(
        self, actor: Actor, notification_id: str, change: NotificationChange
    ) -> Notification:
        """Change a rule; an omitted field keeps its value. The problems that it follows stay.

        Raises:
            ForbiddenError: no admin. InvalidRequestError: every fault. NotFoundError: there is none of that
            id. ConflictError: the name is in use.
        """
        actor.require(Role.ADMIN)
        async with self._database.transaction() as connection:
            row = _found(
                await store.load_notification(connection, notification_id, actor.tenant, lock=True),
                notification_id,
            )
            before = {name: getattr(row, name) for name in NotificationSettings.model_fields}
            after = NotificationSettings.of(**(before | change.given()))
            await self._require_target(connection, after, row.tenant)
            values = [getattr(after, name) for name in NotificationSettings.model_fields]
            await store.update_notification(connection, [notification_id, *values], after.name)
            changed = [name for name in before if getattr(after, name) != before[name]]
            await write_audit(
                connection,
                actor.name,
                row.tenant or ALL_TENANTS,
                "notification.update",
                notification_id,
                change_detail(changed, before, dict(after)),
            )
            row = _found(
                await store.load_notification(connection, notification_id, None), notification_id
            )
        return _notification(row)

    async def _require_target(
        self, connection: "Reach", rule: NotificationSettings, tenant: str | None
    ) -> None:
        """Return if the rule's endpoints exist in its tenant and its target can be sent to.

        Raises:
            InvalidRequestError: has every fault.
        """
        problems = self._target_problems(rule)
        target = rule.to_endpoint_id
        found = {
            one: await endpoint_store.find_endpoint(connection, one, tenant)
            for one in dict.fromkeys([*rule.endpoint_ids, *([] if target is None else [target])])
        }
        problems += [
            problem(f"endpoint_ids[{index}]", "endpoint_not_found", value=one)
            for index, one in enumerate(rule.endpoint_ids)
            if found[one] is None
        ]
        if target is not None:
            problems += self._endpoint_problems(rule, found[target])
        if problems:
            raise InvalidRequestError(problems)

    def _target_problems(self, new: NotificationSettings) -> list[Problem]:
        if new.to_endpoint_id is not None and new.email is not None:
            return [problem("email", "conflicting", other="to_endpoint_id")]
        if new.to_endpoint_id is None and new.email is None:
            return [problem("to_endpoint_id", "no_target")]
        if new.email and not self._deployment.settings.smtp.host:
            return [problem("email", "smtp_not_configured")]
        return []

    def _endpoint_problems(
        self, new: NotificationSettings, target: EndpointDetail | None
    ) -> list[Problem]:
        if target is None:
            return [problem("to_endpoint_id", "target_not_found", value=new.to_endpoint_id)]
        profile = self._deployment.profiles.get(target.profile)
        needs = profile is not None and any(
            one.source is FieldSource.MEMBER and one.member == "recipient"
            for one in flattened(profile.fields)
        )
        if needs and new.recipient is None:
            return [problem("recipient", "recipient_required", profile=target.profile)]
        return []

    async def page(
        self,
        actor: Actor,
        query: NotificationsQuery = NotificationsQuery(),  # noqa: B008 -- frozen
    ) -> NotificationPage:
        """Return a page of rules, newest first.

        Raises:
            ForbiddenError: no admin. InvalidRequestError: the cursor is another list's.
            NotFoundError: the tenant is not the actor's.
        """
        actor.require(Role.ADMIN)
        whose = allowed_tenant(actor, query.tenant)
        scope = cursor_scope("notifications", whose, {})
        place = read_cursor(query.cursor, scope) or (None, None)
        async with self._database.reading() as connection:
            rows = await store.page_of_notifications(
                connection, [whose, *place, query.limit + 1, None]
            )
        items, next_cursor = page_of(
            rows, query.limit, lambda row: Place(row.created_at, row.id), _notification, scope=scope
        )
        return NotificationPage(items=items, next_cursor=next_cursor)

    async def show(self, actor: Actor, notification_id: str) -> NotificationWithProblems:
        """Return a rule with the problems that it follows now.

        Raises:
            ForbiddenError: no admin. NotFoundError: there is none of that id in the actor's sight.
        """
        actor.require(Role.ADMIN)
        async with self._database.reading() as connection:
            row = _found(
                await store.load_notification(connection, notification_id, actor.tenant),
                notification_id,
            )
            problems = await store.open_problems(connection, notification_id, PROBLEMS_MAX)
        shown = _notification(row)
        values = {one.name: getattr(shown, one.name) for one in dataclasses.fields(shown)}
        return NotificationWithProblems(**values, problems=[_problem(one) for one in problems])

    async def test(self, actor: Actor, notification_id: str) -> Notification:
        """Send a test message by a rule, whatever its quiet time.

        Raises:
            ForbiddenError: no admin. NotFoundError: there is none of that id. TooManyError: too many tests.
        """
        actor.require(Role.ADMIN)
        async with self._database.transaction() as connection:
            row = _found(
                await store.load_notification(connection, notification_id, actor.tenant),
                notification_id,
            )
            self._deployment.send_limits.take_send(actor.name, notification_id)
            settings = self._deployment.settings
            message = Message(
                _rule(row),
                "test",
                [],
                self._deployment.clock.now(),
                settings.http.public_url,
                settings.notifications.language,
            )
            await store.send_message(connection, message)
            await self._audit(connection, actor, row, "notification.test")
        return _notification(row)

    async def delete(self, actor: Actor, notification_id: str) -> None:
        """Delete a rule; it sends no more messages, also not about the end of a problem.

        Raises:
            ForbiddenError: no admin. NotFoundError: there is none of that id.
        """
        actor.require(Role.ADMIN)
        async with self._database.transaction() as connection:
            row = _found(
                await store.load_notification(connection, notification_id, actor.tenant, lock=True),
                notification_id,
            )
            await store.delete_notification(connection, notification_id)
            await self._audit(connection, actor, row, "notification.delete")

    async def _audit(
        self, connection: "Reach", actor: Actor, row: NotificationDetail, action: str
    ) -> None:
        await write_audit(
            connection, actor.name, row.tenant or ALL_TENANTS, action, row.id, {"name": row.name}
        )


def _rule(row: NotificationDetail) -> Rule:
    return Rule(
        row.id, row.name, row.tenant, row.event_types, row.endpoint_ids, row.to_endpoint_id,
        row.email, row.recipient, row.quiet_seconds, row.digest_seconds, None,
    )  # fmt: skip


def _notification(row: NotificationDetail) -> Notification:
    values = row._asdict()
    for name, value in values.items():
        if isinstance(value, datetime):
            values[name] = time_text(value)
    return Notification(**values)


def _problem(row: OpenProblem) -> NotificationProblem:
    return NotificationProblem(
        event_type=row.event_type,
        endpoint_id=EndpointId(row.endpoint_id),
        endpoint_name=row.endpoint_name,
        tenant=row.tenant,
        reason=row.reason,
        started_at=time_text(row.started_at),
        announced_at=time_text(row.announced_at),
        events_count=row.events_count,
    )


def _found(row: NotificationDetail | None, notification_id: str) -> NotificationDetail:
    if row is None:
        raise NotFoundError(problem("id", "notification_not_found", value=notification_id))
    return row
