"""Retention asked for by a person: what would go now, or that it goes."""

from dispatcher.admin.operations.deployment import Actor, Deployment, Role
from dispatcher.admin.resources.serialization import Object
from dispatcher.core.errors import NotFoundError
from dispatcher.maintenance.retention import Action, Retention, Step, days_of, planned
from dispatcher.store import admin as store
from dispatcher.store.partitions import History


class HistoryEnd:
    """The end of a deployment's history."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._history = History(deployment.database)

    async def run(self, actor: Actor, *, dry_run: bool) -> Object:
        """Does what the daemon does now and then, or tells what it would.

        The answer has `items`, one for each day of a table that is past its days, with the planned
        `action` and, unless it is a dry run, the `result`; and how many lines of the audit log are
        too old.

        Raises:
            NotFoundError: the actor is bound to a tenant, and history is everybody's.
        """
        if actor.tenant is not None:
            raise NotFoundError("retention is not to be seen from within a tenant")
        actor.require(Role.ADMIN)
        days = days_of(self._deployment.settings.retention)
        audit_lines = await self._history.old_audit_lines(days.audit)
        if dry_run:
            done: list[tuple[Step, str | None]] = [
                (step, None) for step in await planned(self._history, days)
            ]
        else:
            retention = Retention(self._history, days, clock=self._deployment.clock)
            done = list(await retention.round())
            ended = [step for step, became in done if became in {"dropped", "emptied"}]
            if ended or audit_lines:
                detail = {"partitions": len(ended), "audit_lines": audit_lines}
                async with self._deployment.database.transaction() as connection:
                    await store.write_audit(
                        connection, actor.name, "*", "retention.run", "history", detail
                    )
        return {
            "dry_run": dry_run,
            "items": [_item(step, became) for step, became in done],
            "audit_lines": audit_lines,
            "bytes": sum(step.bytes for step, _ in done if step.action is not Action.KEEP),
            "kept_for_unfinished": sum(
                step.action is Action.KEEP or became == "unfinished" for step, became in done
            ),
        }


def _item(step: Step, became: str | None) -> Object:
    return {
        "table": step.table,
        "day": str(step.day),
        "action": step.action,
        "bytes": step.bytes,
        "rows": step.rows,
        "unfinished": step.unfinished,
        "result": became,
    }
