"""Options and steps that commands share."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dispatcher.cli.session import Session

Json = Annotated[bool, typer.Option("--json", help="Print the API's object as JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


def run_step(context: typer.Context, step: "Callable[[Session], Awaitable[None]]") -> None:
    """Run one step on the database, and exit the command with its exit code."""
    from dispatcher.cli.session import work  # noqa: PLC0415 -- --help loads neither aiohttp nor asyncpg

    work(context, step)
