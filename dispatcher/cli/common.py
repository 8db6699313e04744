"""Options, arguments and steps that commands share."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli.completion import complete_names

if TYPE_CHECKING:
    from dispatcher.cli.session import Session

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count the matching deliveries.")]
Endpoint = Annotated[
    str,
    typer.Argument(
        metavar="ENDPOINT",
        help="Its name or id.",
        autocompletion=complete_names("endpoint"),
    ),
]
Tenant = Annotated[
    str | None,
    typer.Option(metavar="TENANT", help="The tenant, if several use the name."),
]


def run_step(context: typer.Context, step: "Callable[[Session], Awaitable[None]]") -> None:
    """Run one step on the database, and exit the command with its exit code."""
    from dispatcher.cli.session import work  # noqa: PLC0415 -- --help loads neither aiohttp nor asyncpg

    work(context, step)


def confirm(question: str, *, yes: bool) -> None:
    """Ask a question on standard error, and abort unless it is confirmed; `yes` confirms without asking."""
    from dispatcher.core.printable import escape  # noqa: PLC0415 -- only questions need it

    if not yes:
        typer.confirm(escape(question), abort=True, err=True)
