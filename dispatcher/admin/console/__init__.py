"""The console: pages for people, over the same operations as the API."""

from aiohttp import web

from dispatcher.admin.auth import Auth
from dispatcher.admin.operations.facade import Operations
from dispatcher.config.settings import Settings


def add_console(
    app: web.Application, operations: Operations, auth: Auth, settings: Settings
) -> None:
    """Adds the console's routes to the application."""
    del operations, auth, settings

    async def root(_: web.Request) -> web.Response:
        return web.Response(text="dispatcher: the API is at /api/v1\n")

    app.router.add_get("/", root)
