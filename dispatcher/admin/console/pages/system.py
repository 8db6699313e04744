"""The state of the deployment: health first, then storage; the settings have a page of their own."""

from collections.abc import Iterator
from datetime import date, datetime
from typing import Any, Final, NamedTuple

from aiohttp import web

from dispatcher.admin.console.app import PageRoute
from dispatcher.admin.console.context import Context
from dispatcher.admin.resources.system import SystemStatus
from dispatcher.core.errors import NotFoundError
from dispatcher.core.problems import problem

UNSAFE: Final = ("egress.allow_http", "egress.allow_networks", "egress.allow_metadata")
_LAG_SECONDS: Final = (5.0, 60.0)
_LEASE_SECONDS: Final = (5.0, 10.0)
_CONNECTIONS: Final = (0.75, 0.9)
_NOTIFY_QUEUE: Final = (0.1, 0.5)
_TRANSACTION_SECONDS: Final = (3_600.0, 21_600.0)
"""From the first on, a figure is a warning, from the second on a problem."""
_DAYS_AHEAD_MIN: Final = 2


class Check(NamedTuple):
    """One figure of the deployment's health."""

    key: str
    tone: str
    kind: str
    """How the page writes the value: `count`, `span`, `share` or `days`."""
    value: float
    help: str
    """The section of the documentation that explains what to do."""


def checks_of(status: SystemStatus) -> list[Check]:
    """Return the checks of a deployment; without the database for those who see one tenant."""
    return sorted(_checks(status), key=lambda check: ("bad", "warn", "good").index(check.tone))


def _checks(status: SystemStatus) -> Iterator[Check]:
    replicas = status.replicas
    oldest = max((one.lease_renewed_seconds_ago for one in replicas), default=0.0)
    runs = "bad" if not replicas else _tone(oldest, _LEASE_SECONDS)
    yield Check("replicas", runs, "count", len(replicas), "reference/operations#several-replicas")
    free = status.shards_free_count
    yield Check(
        "shards", "warn" if free else "good", "count", free, "reference/operations#several-replicas"
    )
    lag = status.outbox.lag_seconds
    yield Check("outbox", _tone(lag, _LAG_SECONDS), "span", lag, "how-to/runbooks")
    breakers = len(status.breakers)
    yield Check(
        "breakers",
        "warn" if breakers else "good",
        "count",
        breakers,
        "reference/operations#health-of-endpoints",
    )
    if status.postgres is None:
        return
    postgres = status.postgres
    used = postgres.connections_count / max(1, postgres.connections_max)
    yield Check(
        "connections", _tone(used, _CONNECTIONS), "share", used, "reference/operations#the-database"
    )
    queue = postgres.notify_queue_usage
    yield Check(
        "notify", _tone(queue, _NOTIFY_QUEUE), "share", queue, "reference/operations#the-database"
    )
    transaction = postgres.oldest_transaction_seconds or 0.0
    tone = _tone(transaction, _TRANSACTION_SECONDS)
    yield Check("transaction", tone, "span", transaction, "reference/operations#the-database")
    if status.partitions:
        today = datetime.fromisoformat(status.at).date()
        last = date.fromisoformat(status.partitions[-1].day)
        ahead = (last - today).days
        tone = "good" if ahead >= _DAYS_AHEAD_MIN else "warn" if ahead > 0 else "bad"
        yield Check("partitions", tone, "days", ahead, "reference/operations#retention")


def _tone(value: float, bounds: tuple[float, float]) -> str:
    return "bad" if value >= bounds[1] else "warn" if value >= bounds[0] else "good"


async def system(context: Context) -> web.StreamResponse:
    """Show health, replicas and breakers; to a viewer of all tenants also the database and its storage."""
    status = await context.operations.system.show(context.who)
    checks = checks_of(status)
    return context.page(
        "system.html",
        system=status,
        checks=checks,
        wrong_count=sum(check.tone != "good" for check in checks),
        history_bytes=sum(day.bytes for day in status.partitions),
    )


async def settings(context: Context) -> web.StreamResponse:
    """Show the effective settings and their sources, to a viewer of all tenants.

    Raises:
        NotFoundError: the viewer sees one tenant.
    """
    if context.who.tenant is not None:
        raise NotFoundError(problem("id", "id_not_found"))
    return context.page("system_settings.html", sections=_settings(context))


class Setting(NamedTuple):
    """A setting in force."""

    key: str
    value: str
    source: str
    is_default: bool
    opens: bool
    """Whether it allows something that is denied by default."""


def _settings(context: Context) -> list[tuple[str, list[Setting]]]:
    """Return the settings by section; none of them is a secret."""
    found = context.app.settings
    sections: list[tuple[str, list[Setting]]] = []
    values: dict[str, Any] = found.model_dump(mode="json")
    for name, members in values.items():
        if not isinstance(members, dict) or name == "sources":
            continue
        rows = []
        for key, value in members.items():
            path = f"{name}.{key}"
            source = found.source_of(path)
            opens = path in UNSAFE and bool(value)
            rows.append(Setting(path, _written(value), source, source == "default", opens))
        sections.append((name, rows))
    return sections


def _written(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return ", ".join(f"{name} = {_written(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(_written(one) for one in value)
    return str(value)


ROUTES: Final = (
    PageRoute("GET", "/system", system),
    PageRoute("GET", "/system/settings", settings),
)
