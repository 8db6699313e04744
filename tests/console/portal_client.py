"""A browser without scripts in the portal: opens a link and asks for pages below `/portal`."""

from urllib.parse import urlsplit

from dispatcher.admin.operations.context import Actor
from dispatcher.admin.resources.portal_link import CreatedPortalLink, NewPortalLink
from tests.console.conftest import ALL, Client, Page, Served

ORIGIN = "https://app.example.com"


async def new_link(served: Served, actor: Actor = ALL, **fields: object) -> CreatedPortalLink:
    given = {"tenant": "default", **fields}
    return await served.operations.portal_links.create(actor, NewPortalLink.of(**given))


def path_of(link: CreatedPortalLink) -> str:
    return urlsplit(link.url).path


async def opened(served: Served, **fields: object) -> Client:
    """Return a client with an open portal."""
    client = served.client()
    answer = await client.post(path_of(await new_link(served, ALL, **fields)), {})
    assert (answer.status, answer.headers["Location"]) == (303, "/portal?opened=1")
    return client


def policy(page: Page) -> str:
    """Return who may embed a page, as its policy has it."""
    return str(page.headers["Content-Security-Policy"].partition("frame-ancestors ")[2])
