"""The documentation: its contents, its pages, and their images."""

from typing import Final

from aiohttp import web

from dispatcher.admin.console.app import PageRoute
from dispatcher.admin.console.context import Context
from dispatcher.admin.console.help_links import GUIDES, about
from dispatcher.admin.console.manual import IMAGE_TYPES, files, find_page
from dispatcher.core.errors import NotFoundError
from dispatcher.core.problems import problem

IMAGE_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
"""An image loads nothing and runs nothing; drawings have styles of their own."""


async def contents(context: Context) -> web.StreamResponse:
    """Show the contents of the documentation."""
    kinds = {
        kind: [(await find_page(name, context.language.code), about(name)) for name in names]
        for kind, names in GUIDES.items()
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
    if page is None:
        raise NotFoundError(problem("id", "id_not_found"))
    return context.page(
        "help.html", help_page=page, is_untranslated=page.language != context.language.code
    )


ROUTES: Final = (
    PageRoute("GET", "/help", contents),
    PageRoute("GET", "/help/{name:.+}", show),
)
