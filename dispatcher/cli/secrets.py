"""`dispatcher secrets`: the keys that encrypt endpoints' secrets."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli.commands import CommandGroup
from dispatcher.cli.common import run_step
from dispatcher.cli.output import Output, say, say_data, tell

if TYPE_CHECKING:
    from dispatcher.cli.session import Session

group = CommandGroup()


@group.command()
def rekey(
    context: typer.Context,
    output: Output,
    unchecked: Annotated[
        bool,
        typer.Option(
            "--unchecked", help="Continue although a running replica may not have the new key."
        ),
    ] = False,
) -> None:
    """Encrypt every secret with the first of the secret keys.

    The keys are in DISPATCHER_SECRET_KEYS. Replicas keep running. Add the new key behind the old one and
    restart every replica. Move it to the front and restart again. Then run this command, remove the old key and
    restart. If the command is interrupted, run it again. It exits with 1 if a secret cannot be decrypted with any
    configured key.

    Examples:
      dispatcher secrets rekey
    """

    async def step(session: "Session") -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        from dispatcher.admin.operations.rekey import Rekey
        from dispatcher.core.errors import SecretError

        console = Console(stderr=True)
        columns = (TextColumn("re-encrypting"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task("rekey", total=None)
            answer = await Rekey(session.deployment).run(
                session.actor,
                unchecked=unchecked,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        if output.is_data:
            say_data(answer, output)
        else:
            say(
                f"{answer.resealed} re-encrypted with key {answer.key_id}, of {answer.secrets} secrets"
            )
        if answer.unreadable:
            tell("no configured key decrypts the secrets of these endpoints; rotate them:")
            tell("\n".join(answer.unreadable))
            raise SecretError(f"{len(answer.unreadable)} endpoints were not changed")

    run_step(context, step)
