"""The console on the real database: served in this process for its answers, by a daemon for a browser."""

import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from aiohttp import web
from playwright.sync_api import Browser, ConsoleMessage, Dialog, sync_playwright

from dispatcher.admin.auth import Auth
from dispatcher.admin.console import add_console
from dispatcher.admin.operations.context import Actor, Deployment
from dispatcher.admin.operations.facade import Operations
from dispatcher.admin.resources.token import NewToken
from dispatcher.cli.session import deployment_of, open_http_client
from dispatcher.config.settings_reader import load_settings
from dispatcher.store.pool import Database
from tests.support.cluster import Cluster, run_apart
from tests.support.daemon import Daemon, Receiver
from tests.support.story import Story
from tests.support.tools import need

KEY = "k1:" + "QUJD" * 10 + "QUI="
ADMIN_TOKEN = "admin-token-of-the-tests-0123456789"  # noqa: S105 -- of the tests
ALL = Actor(name="cli:tester")


def environment(url: str) -> dict[str, str]:
    return {
        "DISPATCHER_DATABASE_URL": url,
        "DISPATCHER_SECRET_KEYS": KEY,
        "DISPATCHER_ADMIN_TOKEN": ADMIN_TOKEN,
        "DISPATCHER_EGRESS__ALLOW_HTTP": "true",
        "DISPATCHER_EGRESS__ALLOW_NETWORKS": '["127.0.0.1/32"]',
    }


class Page:
    """One answer of the console."""

    def __init__(self, status: int, headers: Any, text: str) -> None:
        self.status = status
        self.headers = headers
        self.text = text

    def hidden(self, name: str) -> str:
        """Returns the value of the first hidden field of this name."""
        found = re.search(rf'name="{name}" value="([^"]*)"', self.text)
        assert found is not None, f"no field {name} in {self.text[:500]}"
        return unescape(found[1])


class Client:
    """A browser without scripts: keeps cookies, sends what forms hold, follows nothing by itself."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
        self.headers: dict[str, str] = {"Sec_Fetch_Site": "same-origin", "Accept_Language": "en"}

    async def get(self, path: str, **headers: str) -> Page:
        return await self.ask("GET", path, None, headers)

    async def post(self, path: str, fields: Any, **headers: str) -> Page:
        return await self.ask("POST", path, fields, headers)

    async def ask(self, method: str, path: str, fields: Any, headers: dict[str, str]) -> Page:
        sent = {
            name.replace("_", "-"): value
            for name, value in {**self.headers, **headers}.items()
            if value
        }
        async with self.session.request(
            method, self.base + path, data=fields, headers=sent, allow_redirects=False
        ) as answer:
            return Page(answer.status, answer.headers, await answer.text())

    async def sign_in(self, token: str = ADMIN_TOKEN) -> "Client":
        answer = await self.post("/sign-in", {"token": token, "next": "/"})
        assert answer.status == 303, answer.text
        return self

    async def submit(self, path: str, fields: Any, *, page: str | None = None) -> Page:
        """Sends a form with what its page hides in it."""
        shown = await self.get(page or path)
        assert shown.status == 200, shown.text
        hidden = {name: shown.hidden(name) for name in ("csrf", "form_id")}
        return await self.post(path, {**hidden, **fields})


class Served:
    """The console in this process, its operations, and clients of it."""

    def __init__(self, base: str, operations: Operations, auth: Auth) -> None:
        self.base = base
        self.operations = operations
        self.auth = auth
        self.clients: list[Client] = []

    def client(self) -> Client:
        self.clients.append(Client(self.base))
        return self.clients[-1]

    async def as_role(self, role: str, tenant: str | None = None) -> Client:
        """Returns a client that is signed in with a new token of this role."""
        made = await self.operations.tokens.create(
            ALL, NewToken.of(name=f"a {role} of {tenant}", role=role, tenant=tenant)
        )
        return await self.client().sign_in(made.token)


@pytest.fixture
async def deployment(database: str) -> AsyncIterator[Deployment]:
    pool = Database(database, connections_max=4)
    await pool.open()
    yield deployment_of(load_settings(None, environment(database)), pool)
    await pool.close()


@pytest.fixture
async def served(deployment: Deployment) -> AsyncIterator[Served]:
    async with open_http_client(deployment.settings) as http_client:
        operations, auth = Operations.of(deployment, http_client), Auth(deployment)
        application = web.Application(client_max_size=1 << 20)
        add_console(application, operations, auth, deployment.settings)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        made = Served(f"http://127.0.0.1:{runner.addresses[0][1]}", operations, auth)
        yield made
        for client in made.clients:
            await client.session.close()
        await runner.cleanup()


@pytest.fixture
async def admin(served: Served) -> Client:
    return await served.client().sign_in()


@pytest.fixture
async def sql(database: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


@pytest.fixture
async def story(deployment: Deployment, sql: "asyncpg.Connection[asyncpg.Record]") -> Story:
    return Story(deployment, sql)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's browser; where there is none, a skip that says so, and a failure where CI is set.

    Its driver keeps an event loop running in this thread, so no module that asks for it has a test
    with a loop of its own, and it ends with the module.
    """
    chromium = need("chromium", package="chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def own_database(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A migrated database of the module's own, for a daemon that several tests look at."""
    name = f"console_{abs(hash(request.module.__name__))}_{os.getpid()}"
    yield cluster.clone(name)
    cluster.drop(name)


def ask_database(url: str, statement: str, *values: Any) -> list["asyncpg.Record"]:
    """Runs one statement from a test that has no event loop."""

    async def ask() -> list["asyncpg.Record"]:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetch(statement, *values)
        finally:
            await connection.close()

    return run_apart(ask)


class Living:
    """A daemon as a process with its console, a receiver that it sends to, and its database."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.receiver = Receiver(folder)
        self.daemon = Daemon(url, folder, environ={"DISPATCHER_ADMIN_TOKEN": ADMIN_TOKEN})
        run_apart(self.daemon.started)
        self.base = f"http://127.0.0.1:{self.daemon.port}"

    def stop(self) -> None:
        self.daemon.stop()
        self.receiver.stop()

    def sql(self, statement: str, *values: Any) -> list["asyncpg.Record"]:
        return ask_database(self.url, statement, *values)


@pytest.fixture(scope="module")
def living(
    browser: Browser, own_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Living]:
    """A daemon of the module's own; made after the browser, so that nothing starts where none is."""
    del browser
    made = Living(own_database, tmp_path_factory.mktemp("console"))
    yield made
    made.stop()


class Watched:
    """A tab that notes what must never happen: a script that was not ours, a report of the policy, an error."""

    def __init__(self, browser: Browser, base: str, **options: Any) -> None:
        self.base = base
        self.context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, "timezone_id": "Asia/Bangkok", **options}
        )
        self.context.set_default_timeout(15_000)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", self._asked)

    def _said(self, message: ConsoleMessage) -> None:
        # A page with an error's status is a "failed resource" to Chromium; the policy is what matters.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def _asked(self, dialog: Dialog) -> None:
        """Note a box of the browser: the console asks in dialogs of its own, so a script opened it."""
        self.complaints.append(f"{dialog.type}: {dialog.message}")
        dialog.dismiss()

    def open(self, path: str) -> None:
        self.page.goto(self.base + path)

    def sign_in(self, token: str = ADMIN_TOKEN) -> "Watched":
        self.open("/sign-in")
        self.page.fill("#token", token)
        self.page.press("#token", "Enter")
        self.page.wait_for_url(self.base + "/")
        return self

    def close(self) -> None:
        self.context.close()


@pytest.fixture
def open_tab(browser: Browser, living: Living) -> Iterator[Callable[..., Watched]]:
    """Opens tabs on the daemon's console; options are the browser's (`locale`, `color_scheme`, ...)."""
    made: list[Watched] = []

    def make(**options: Any) -> Watched:
        made.append(Watched(browser, living.base, **options))
        return made[-1]

    yield make
    for tab in made:
        tab.close()
