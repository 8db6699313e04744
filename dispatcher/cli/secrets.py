"""`dispatcher secrets`: the keys that endpoints' secrets are sealed with."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli.output import say, say_json, tell

if TYPE_CHECKING:
    from dispatcher.cli.session import Session

group = typer.Typer(no_args_is_help=True, help="Secrets at rest: seal them with a new key.")


@group.callback()
def secrets() -> None:
    """Secrets at rest: seal them with a new key."""


@group.command()
def rekey(
    context: typer.Context,
    unchecked: Annotated[
        bool,
        typer.Option(
            "--unchecked", help="Go on although a running replica may not have the new key."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> None:
    """Seal every secret with the first key of DISPATCHER_SECRET_KEYS, while replicas run.

    The order: add the new key behind the old one and restart every replica; put it in front and restart; rekey; take
    the old key away and restart. Cut off, it is run again. Ends with 1 if a secret opens with no configured key.

    Example:  dispatcher secrets rekey
    """

    async def step(session: "Session") -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        from dispatcher.admin.operations.rekey import Rekey
        from dispatcher.core.errors import SecretError

        console = Console(stderr=True)
        columns = (TextColumn("sealing anew"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task("rekey", total=None)
            answer = await Rekey(session.deployment).run(
                session.actor,
                unchecked=unchecked,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        if as_json:
            say_json(answer)
        else:
            say(
                f"{answer['resealed']} sealed anew with key {answer['key_id']}, of {answer['secrets']} secrets"
            )
        if answer["unreadable"]:
            tell("these endpoints have a secret that no configured key opens; rotate it:")
            tell("\n".join(answer["unreadable"]))
            raise SecretError(f"{len(answer['unreadable'])} endpoints were left as they are")

    from dispatcher.cli.session import work

    work(context, step)
