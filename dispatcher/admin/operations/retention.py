"""Retention asked for by a person: what would go now, or that it goes."""

from dispatcher.admin.operations.context import Actor, Deployment, Role
from dispatcher.admin.resources.maintenance import RetentionRun, RetentionStep
from dispatcher.core.errors import NotFoundError
from dispatcher.core.problems import problem
from dispatcher.maintenance.retention import Action, PartitionStep, Retention, days_of, planned
from dispatcher.store.audit import write_audit
from dispatcher.store.partitions import Partitions


class HistoryEnd:
    """The end of a deployment's history."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._history = Partitions(deployment.database)

    async def run(self, actor: Actor, *, dry_run: bool) -> RetentionRun:
        """Drop the history past its retention, as the daemon does, or only plan it (`dry_run`).

        Raises:
            NotFoundError: the actor is bound to a tenant, and history is everybody's.
        """
        if actor.tenant is not None:
            raise NotFoundError(problem("tenant", "all_tenants_only"))
        actor.require(Role.ADMIN)
        days = days_of(self._deployment.settings.retention)
        audit_lines = await self._history.old_audit_lines(days.audit)
        if dry_run:
            done: list[tuple[PartitionStep, str | None]] = [
                (step, None) for step in await planned(self._history, days)
            ]
        else:
            retention = Retention(self._history, days, clock=self._deployment.clock)
            done = list(await retention.round())
            ended = [step for step, became in done if became in {"dropped", "emptied"}]
            if ended or audit_lines:
                detail = {"partitions": len(ended), "audit_lines": audit_lines}
                async with self._deployment.database.transaction() as connection:
                    await write_audit(
                        connection, actor.name, "*", "retention.run", "history", detail
                    )
        return RetentionRun(
            dry_run=dry_run,
            items=[
                RetentionStep(**{**step._asdict(), "day": str(step.day)}, result=result)
                for step, result in done
            ],
            audit_lines=audit_lines,
            bytes=sum(step.bytes for step, _ in done if step.action is not Action.KEEP),
            kept_for_unfinished=sum(
                step.action is Action.KEEP or result == "unfinished" for step, result in done
            ),
        )
