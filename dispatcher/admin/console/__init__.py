"""The Webhooks console: pages over the same operations as the API and the command line.

    browser ── session ──▶ app ──▶ a page ──▶ operations ──▶ Postgres
                           │          │
                     csrf (CSP,     templates (escaped), messages in Thai or English
                     origin, token)

Invariants:

* Every page works without scripts. Scripts only make it quicker: htmx replaces parts of a page, and a
  small script of ours handles the keyboard and renders the live tail.
* Text from outside is always escaped and never markup.
* A change is a POST from a page of ours. It ends in a redirect, or in a page that no cache keeps if a
  secret is shown once.
* Sessions are in the database, so that a crash signs out no user.
* While Postgres is slow or unavailable, a request gets an error page within its time limit. Pages have a
  connection pool of their own, so that they never take a connection from deliveries.
"""

from aiohttp import web

from dispatcher.admin.auth import Auth
from dispatcher.admin.console import assets
from dispatcher.admin.console.app import ConsoleApp
from dispatcher.admin.console.pages import (
    access,
    activity,
    deliveries,
    documentation,
    endpoint_forms,
    endpoints,
    event_types,
    events,
    jobs,
    notifications,
    overview,
    portal,
    portal_links,
    schedule,
    search,
    secrets,
    session,
    signature,
    system,
    tail,
    test_events,
)
from dispatcher.admin.oidc.sign_on import SignOn
from dispatcher.admin.operations.facade import Operations
from dispatcher.config.settings import Settings

__all__ = ["add_console"]


def add_console(
    application: web.Application,
    operations: Operations,
    auth: Auth,
    settings: Settings,
    sign_on: SignOn | None = None,
) -> ConsoleApp:
    """Add the console's pages to the application."""
    console = ConsoleApp(operations, auth, settings, sign_on)
    # aiohttp uses the first of two matching paths: the form of a new webhook precedes the page of one, and the tail the
    # page of a delivery.
    of_endpoints = (endpoint_forms, endpoints, test_events, secrets)
    modules = (session, overview, search, *of_endpoints, tail, deliveries, signature)
    more = (
        schedule,
        documentation,
        events,
        event_types,
        jobs,
        access,
        portal_links,
        activity,
        system,
    )
    for module in (*modules, *more, notifications):
        for route in module.ROUTES:
            console.add(application, route)
    for route in portal.ROUTES:
        console.add_to_portal(application, route)
    for asset in assets.load().values():
        application.router.add_get(asset.path, session.static)
    application.middlewares.append(console.error_pages)
    return console
