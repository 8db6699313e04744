"""`dispatcher retention`: drop the history past its retention, or show it."""

import typer

from dispatcher.admin.operations.retention import HistoryEnd
from dispatcher.admin.resources.maintenance import RetentionRun
from dispatcher.cli.output import Column, Output, say_data, say_table, tell
from dispatcher.cli.session import Session, work

_COLUMNS = (
    Column("TABLE", "table"),
    Column("DAY", "day"),
    Column("ACTION", "action"),
    Column("ROWS", "rows"),
    Column("BYTES", "bytes"),
    Column("WAITING", "unfinished"),
    Column("RESULT", "result", can_be_cut=True),
)


def retention(context: typer.Context, *, dry_run: bool, output: Output) -> None:
    """Drop the history past its retention, or show it."""

    async def step(session: Session) -> None:
        answer = await HistoryEnd(session.deployment).run(session.actor, dry_run=dry_run)
        if output.is_data:
            say_data(answer, output)
        else:
            _say(answer, output)

    work(context, step)


def _say(answer: RetentionRun, output: Output) -> None:
    columns = _COLUMNS[:-1] if answer.dry_run else _COLUMNS
    say_table(answer.items, columns, "nothing is past its retention", output)
    if answer.kept_for_unfinished:
        tell("the kept days have waiting deliveries: `dispatcher delivery list` shows them")
    if answer.audit_lines:
        tell(f"{answer.audit_lines} lines of the audit log are past their retention")
    if answer.dry_run and (answer.items or answer.audit_lines):
        tell(
            "nothing was dropped: omit --dry-run to drop it; a running daemon does it automatically"
        )
