"""`dispatcher open`: a one-time link to the console."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from dispatcher.admin.resources.access import NewSignInLink
from dispatcher.cli.commands import CommandGroup
from dispatcher.cli.common import run_step
from dispatcher.cli.output import Output, say, say_data, tell
from dispatcher.cli.resource_options import Fields, takes

if TYPE_CHECKING:
    from dispatcher.cli.session import Session

group = CommandGroup()


@group.command("open")
@takes(NewSignInLink)
def open_console(context: typer.Context, fields: Fields, output: Output) -> None:
    """Print a link that signs in to the console once.

    It is valid for five minutes.

    Examples:
      dispatcher open
      dispatcher open --role viewer --tenant acme
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.access import Access

        link = await Access(session.deployment).create_link(
            session.actor, NewSignInLink.of(**fields)
        )
        url = session.deployment.settings.console_url() + link.path
        if output.is_data:
            say_data({**asdict(link), "url": url}, output)
            return
        say(url)
        tell("the link signs in one browser, once, and expires in five minutes")

    run_step(context, step)
