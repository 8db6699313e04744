"""The documentation: its contents, its pages, and their images."""

from typing import Final

from aiohttp import web

from dispatcher.admin.console.app import PageRoute
from dispatcher.admin.console.context import Context
from dispatcher.admin.console.help_links import GUIDES, PORTAL_PAGES, about
from dispatcher.admin.console.manual import IMAGE_TYPES, files, find_page, links_below
from dispatcher.core.errors import NotFoundError
from dispatcher.core.problems import problem

IMAGE_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
"""An image loads nothing and runs nothing; drawings have styles of their own."""


async def contents(context: Context) -> web.StreamResponse:
    """Show the contents of the documentation."""
    kinds = {
        kind: [(await find_page(name, context.language.code), about(name)) for name in shown]
        for kind, names in GUIDES.items()
        if (shown := [name for name in names if not context.base or name in PORTAL_PAGES])
    }
    return context.page("help_contents.html", kinds=kinds)


async def show(context: Context) -> web.StreamResponse:
    """Show a page of the documentation, or one of its images."""
    name = context.part("name")
    path = files().get(name)
    if path is not None and path.suffix in IMAGE_TYPES:
        return web.Response(
            body=path.read_bytes(),
            content_type=IMAGE_TYPES[path.suffix],
            headers={
                "Content-Security-Policy": IMAGE_POLICY,
                "X-Content-Type-Options": "nosniff",
                "Cross-Origin-Resource-Policy": "same-origin",
                "Cache-Control": "private, max-age=3600",
            },
        )
    page = await find_page(name, context.language.code)
    if page is None or (context.base and name not in PORTAL_PAGES):
        raise NotFoundError(problem("id", "id_not_found"))
    if context.base:
        page = page._replace(body=links_below(page.body, context.base, PORTAL_PAGES))
    is_untranslated = page.language == "en" != context.language.code
    return context.page("help.html", help_page=page, is_untranslated=is_untranslated)


ROUTES: Final = (
    PageRoute("GET", "/help", contents, portal=True),
    PageRoute("GET", "/help/{name:.+}", show, portal=True),
)
