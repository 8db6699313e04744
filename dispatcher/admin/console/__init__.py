"""The Webhooks console: pages over the same operations as the API and the command line.

    browser ── session ──▶ site ──▶ a page ──▶ operations ──▶ Postgres
                            │          │
                     guard (CSP,    templates (escaped), words in Thai or English
                     origin, token)

What is always true: every page works without scripts, which only make it quicker (htmx puts parts in
place, a small script of ours knows the keys and shows the live tail); text from outside is text,
never markup; a change is a POST from a page of ours and ends in a redirect, or, where a secret is
shown once, in a page that no cache keeps. After a crash people sign in no second time: sessions are
in the database. While Postgres is slow or away, a page is answered within its bound by one that says
so; the pages' pool is apart from the deliveries', so looking costs no delivery its connection.
"""

from aiohttp import web

from dispatcher.admin.auth import Auth
from dispatcher.admin.console import assets
from dispatcher.admin.console.pages import (
    administration,
    deliveries,
    endpoints,
    events,
    overview,
    secrets,
    session,
    tail,
    trial,
)
from dispatcher.admin.console.site import Site
from dispatcher.admin.operations.facade import Operations
from dispatcher.config.settings import Settings

__all__ = ["add_console"]


def add_console(
    application: web.Application, operations: Operations, auth: Auth, settings: Settings
) -> Site:
    """Puts the console's pages into the application."""
    site = Site(operations, auth, settings)
    # The tail before one delivery: of two paths that fit, the first one is taken.
    for module in (session, overview, endpoints, trial, secrets, tail, deliveries, events, administration):  # fmt: skip
        for route in module.ROUTES:
            site.add(application, route)
    for asset in assets.load().values():
        application.router.add_get(asset.path, session.static)
    application.middlewares.append(site.lost)
    return site
