"""The endpoint of `dispatcher listen --endpoint NAME`: it exists while the command runs.

    create, or take over what a crash left ──▶ requests arrive ──▶ delete, also after SIGTERM

A header of the endpoint names the process that created it. An endpoint of that name without the header is a person's
and is never touched; one whose process has ended was left by a crash and is taken over, with its waiting deliveries.
One of another machine is left alone.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from dispatcher.admin.operations.endpoints import Endpoints
from dispatcher.admin.operations.rotation import Rotation
from dispatcher.admin.resources.endpoint import Endpoint
from dispatcher.admin.resources.endpoint_requests import EndpointsQuery
from dispatcher.admin.resources.fields import TENANT_DEFAULT
from dispatcher.cli.output import tell, warn
from dispatcher.cli.session import Session
from dispatcher.core.errors import DispatcherError

MARK: Final = "X-Dispatcher-Listen"
"""The header that names host and process of the listener."""
DELETE_SECONDS_MAX: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """The endpoint that people ask for."""

    name: str
    event_types: Sequence[str]
    tenant: str | None
    profile: str | None
    url: str | None
    """The address of the receiver for the dispatcher; None: the one that it listens on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """The endpoint as it is registered."""

    id: str
    profile: str
    url: str
    secret: str | None


@asynccontextmanager
async def registered(
    session: Session, wanted: Registration, url: str, ca_pem: str | None
) -> AsyncIterator[Registered]:
    """Yield the endpoint that sends to `url`, and delete it at the end.

    Raises:
        InvalidRequestError: its fields are invalid. ConflictError: a person's endpoint has the name.
        DispatcherError: another process listens under this name.
    """
    endpoints = Endpoints(session.deployment)
    fields = {
        "name": wanted.name,
        "url": wanted.url or url,
        "event_types": list(wanted.event_types),
        "headers": {MARK: _mark()},
        "ca_pem": ca_pem,
        **({} if wanted.profile is None else {"profile": wanted.profile}),
    }
    left = await _left_by_a_crash(session, wanted)
    if left is None:
        fields["tenant"] = wanted.tenant or TENANT_DEFAULT
        new = endpoints.read_new(session.actor, fields)
        created = await endpoints.create(session.actor, new)
        endpoint, secret = created.id, created.secret
        profile, sends_to, warnings = created.profile, created.url, created.warnings
    else:
        changed, secret = await _take_over(session, left, fields)
        endpoint, profile, sends_to, warnings = changed.id, changed.profile, changed.url, []
        tell(f"took over the endpoint {wanted.name} of a process that did not delete it")
    for warning in warnings:
        warn(warning)
    try:
        yield Registered(id=endpoint, profile=profile, url=sends_to, secret=secret)
    finally:
        await _delete(session, endpoint, wanted.name)


def _mark() -> str:
    return f"{socket.gethostname()}/{os.getpid()}"


async def _left_by_a_crash(session: Session, wanted: Registration) -> Endpoint | None:
    """Return the endpoint that an ended process of this command created under the name.

    Raises:
        DispatcherError: the process is running.
    """
    query = EndpointsQuery.of(name=wanted.name, tenant=wanted.tenant or TENANT_DEFAULT)
    page = await Endpoints(session.deployment).page(session.actor, query)
    for one in page.items:
        mark = one.headers.get(MARK)
        if mark is None:
            return None  # `create` reports the conflict
        if _is_running(mark):
            raise DispatcherError(
                f"`dispatcher listen --endpoint {wanted.name}` is running already ({mark}). Use another name, or, if"
                f" that process has ended: dispatcher endpoint delete {one.id}"
            )
        return one
    return None


def _is_running(mark: str) -> bool:
    """Return whether a process is running; one of another machine counts as running, because nothing is known of it."""
    host, _, number = mark.rpartition("/")
    if host != socket.gethostname() or not number.isdigit():
        return True
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return int(number) != os.getpid()


async def _take_over(
    session: Session, left: Endpoint, fields: dict[str, Any]
) -> tuple[Endpoint, str | None]:
    endpoints = Endpoints(session.deployment)
    change = await endpoints.read_change(session.actor, left.id, fields)
    await endpoints.update(session.actor, left.id, change)
    resumed = await endpoints.resume(session.actor, left.id)
    revealed = await Rotation(session.deployment).reveal(session.actor, left.id)
    return resumed, revealed.secret


async def _delete(session: Session, endpoint_id: str, name: str) -> None:
    """Delete the endpoint, or report that it is still there."""
    try:
        async with asyncio.timeout(DELETE_SECONDS_MAX):
            await Endpoints(session.deployment).delete(session.actor, endpoint_id)
    except (DispatcherError, TimeoutError) as error:
        warn(
            f"the endpoint {name} was not deleted ({str(error) or 'no response from Postgres'});"
            f" run: dispatcher endpoint delete {endpoint_id}"
        )
    else:
        tell(f"deleted the endpoint {name}")
