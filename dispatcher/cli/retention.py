"""`dispatcher retention`: what is past its days, and its end."""

from typing import Any

import typer

from dispatcher.admin.operations.objects import Object
from dispatcher.admin.operations.retention import HistoryEnd
from dispatcher.cli.output import say_json, say_table, tell
from dispatcher.cli.session import Session, work

_COLUMNS = ("table", "day", "action", "rows", "bytes", "unfinished", "result")


def retention(context: typer.Context, *, dry_run: bool, as_json: bool) -> None:
    """Ends what is past its days, or shows it."""

    async def step(session: Session) -> None:
        answer = await HistoryEnd(session.deployment).run(session.actor, dry_run=dry_run)
        if as_json:
            say_json(answer)
        else:
            _say(answer)

    work(context, step)


def _say(answer: Object) -> None:
    rows: list[dict[str, Any]] = answer["items"]
    columns = _COLUMNS[:-1] if answer["dry_run"] else _COLUMNS
    say_table(rows, columns, "nothing is past its days")
    if answer["kept_for_unfinished"]:
        tell("what is kept has deliveries that still wait: `dispatcher delivery list` shows them")
    if answer["audit_lines"]:
        tell(f"{answer['audit_lines']} lines of the audit log are past their days")
    if answer["dry_run"] and (rows or answer["audit_lines"]):
        tell(
            "nothing was touched: leave --dry-run out to do it; a running daemon does it by itself"
        )
