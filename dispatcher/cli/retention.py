"""`dispatcher retention`: drop the history past its retention, or show it."""

import typer

from dispatcher.admin.operations.retention import HistoryEnd
from dispatcher.admin.resources.maintenance import RetentionRun
from dispatcher.cli.output import say_json, say_table, tell
from dispatcher.cli.session import Session, work

_COLUMNS = ("table", "day", "action", "rows", "bytes", "unfinished", "result")


def retention(context: typer.Context, *, dry_run: bool, as_json: bool) -> None:
    """Drop the history past its retention, or show it."""

    async def step(session: Session) -> None:
        answer = await HistoryEnd(session.deployment).run(session.actor, dry_run=dry_run)
        if as_json:
            say_json(answer)
        else:
            _say(answer)

    work(context, step)


def _say(answer: RetentionRun) -> None:
    columns = _COLUMNS[:-1] if answer.dry_run else _COLUMNS
    say_table(answer.items, columns, "nothing is past its retention")
    if answer.kept_for_unfinished:
        tell("the kept days have waiting deliveries: `dispatcher delivery list` shows them")
    if answer.audit_lines:
        tell(f"{answer.audit_lines} lines of the audit log are past their retention")
    if answer.dry_run and (answer.items or answer.audit_lines):
        tell(
            "nothing was dropped: omit --dry-run to drop it; a running daemon does it automatically"
        )
