"""The real server on a real socket and database, and clients with a token of each kind."""

import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import ClientSession

from dispatcher.admin.auth import Auth
from dispatcher.admin.operations.context import Actor, Deployment
from dispatcher.admin.operations.facade import Operations
from dispatcher.admin.operations.publishing import Publisher
from dispatcher.admin.resources.token import NewToken
from dispatcher.admin.server import Server
from dispatcher.cli.session import open_http_client
from dispatcher.runtime.tasks import TaskSet

LARGE_BYTES = 2**20
"""aiohttp warns of larger bytes, which it would send in one go."""
ALL = Actor(name="cli:tester")


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.raw)

    @property
    def faults(self) -> list[str]:
        """The fields at fault."""
        return [one["field"] for one in self.json["errors"]]


@dataclass(frozen=True, slots=True)
class Api:
    """Asks the API, with the admin token unless another is given."""

    url: str
    session: ClientSession
    token: str
    operations: Operations
    auth: Auth

    async def ask(
        self,
        method: str,
        path: str,
        fields: object = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        raw: bytes | None = None,
    ) -> Reply:
        sent = {"Authorization": f"Bearer {self.token if token is None else token}"}
        if token == "":
            sent = {}
        data = raw if raw is not None else None if fields is None else orjson.dumps(fields)
        if data is not None:
            sent["Content-Type"] = "application/json"
        sent |= headers or {}
        sent_data = io.BytesIO(data) if data is not None and len(data) > LARGE_BYTES else data
        url = self.url + (path if path.startswith("//") else f"/api/v1{path}").replace("//", "/")
        async with self.session.request(method, url, data=sent_data, headers=sent) as response:
            return Reply(response.status, response.headers.copy(), await response.read())

    async def token_of(self, role: str, tenant: str | None = None) -> str:
        """Makes a token of this role."""
        made = await self.operations.tokens.create(
            ALL, NewToken.of(name=f"{role} {tenant}", role=role, tenant=tenant)
        )
        return str(made.token)


@asynccontextmanager
async def served(deployment: Deployment) -> AsyncIterator[Api]:
    """Serves a deployment on a port of its own."""

    async def no_problems() -> list[str]:
        return []

    async def no_metrics() -> bytes:
        return b""

    settings = deployment.settings
    assert settings.admin_token is not None
    publisher = Publisher(deployment.database)
    async with open_http_client(settings) as http_client, TaskSet("publishing") as tasks:
        operations = Operations.of(deployment, http_client, publisher=publisher)
        tasks.spawn("publisher", publisher.run())
        tasks.spawn("publisher_rejected", publisher.run_rejected())
        auth = Auth(deployment)
        server = Server(
            problems=no_problems,
            render_metrics=no_metrics,
            operations=operations,
            auth=auth,
            settings=settings,
        )
        port = await server.start("127.0.0.1", 0)
        try:
            async with ClientSession() as session:
                yield Api(
                    f"http://127.0.0.1:{port}",
                    session,
                    settings.admin_token.get_secret_value(),
                    operations,
                    auth,
                )
        finally:
            await server.stop()
