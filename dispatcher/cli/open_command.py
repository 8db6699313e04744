"""`dispatcher open`: a one-time link to the console."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from dispatcher.admin.operations.access import Access
from dispatcher.admin.resources.access import NewSignInLink
from dispatcher.cli.output import Output, say, say_data, tell
from dispatcher.cli.resource_options import Fields
from dispatcher.cli.session import work

if TYPE_CHECKING:
    from dispatcher.cli.session import Session


def open_console(context: typer.Context, fields: Fields, output: Output) -> None:
    """Create a sign-in link and print its address."""

    async def step(session: "Session") -> None:
        link = await Access(session.deployment).create_link(
            session.actor, NewSignInLink.of(**fields)
        )
        url = session.deployment.settings.console_url() + link.path
        if output.is_data:
            say_data({**asdict(link), "url": url}, output)
            return
        say(url)
        tell("the link signs in one browser, once, and expires in five minutes")

    work(context, step)
