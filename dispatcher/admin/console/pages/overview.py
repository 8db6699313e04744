"""Home: the state in one sentence, the open problems with their actions, the traffic, and the first steps."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple
from urllib.parse import urlencode

from aiohttp import web

from dispatcher.admin.console import charts
from dispatcher.admin.console.app import PageRoute
from dispatcher.admin.console.context import Context
from dispatcher.admin.console.pages.events import readable
from dispatcher.admin.console.pages.test_events import TEST_SECONDS_MAX
from dispatcher.admin.console.times import count, span
from dispatcher.admin.operations.context import Role
from dispatcher.admin.resources.delivery import Attempt, DeliveriesQuery
from dispatcher.admin.resources.endpoint_requests import EndpointsQuery
from dispatcher.admin.resources.event import EventsQuery
from dispatcher.admin.resources.job import JobFilter, NewJob
from dispatcher.admin.resources.overview import Bucket, Summary, TrafficRange
from dispatcher.core.errors import ConflictError, DispatcherError
from dispatcher.core.matching import is_operational

SUBSCRIBED_MAX: Final = 5
"""Endpoints whose event types are considered for the first event."""
_EXAMPLE_TYPE: Final = "order.created"
_EXAMPLE_DATA: Final = '{"order_id": "ORD-1"}'


class FirstSteps(NamedTuple):
    """What a new deployment has, and the statement that inserts its first event."""

    has_endpoint: bool
    has_event: bool
    has_delivery: bool
    sql: str


class Part(NamedTuple):
    """One part of a chart: its figures for people to read, and the address of its deliveries."""

    title: str
    since: str
    """As a filter has it: in the viewer's zone, to the minute."""
    href: str


class Outcome(NamedTuple):
    """The outcome of an action on an endpoint: its tone, the sentences, and where to read more."""

    tone: str
    title: str
    text: str = ""
    attempt: Attempt | None = None
    href: str | None = None
    link: str = ""


async def overview(context: Context) -> web.StreamResponse:
    """Show the state of the deployment, or of the viewer's tenant."""
    text = context.query("range")
    over = TrafficRange(text) if text in set(TrafficRange) else TrafficRange.DAY
    summary, problems = await context.operations.overview.home(context.who, over)
    buckets = summary.buckets
    parts = _parts(context, buckets)
    return context.page(
        "overview.html",
        summary=summary,
        open_problems=problems,
        ranges=tuple(TrafficRange),
        first_steps=await _first_steps(context, summary),
        traffic=charts.bars([(one.ok_count, one.not_ok_count) for one in buckets]),
        latency=charts.lines(
            [[one.p50_seconds for one in buckets], [one.p95_seconds for one in buckets]]
        ),
        since=parts[0].since,
        parts=parts,
    )


def _parts(context: Context, buckets: Sequence[Bucket]) -> list[Part]:
    """Return what each part of the charts shows on hover, and where it leads."""
    units = context.units()
    # A part begins where the one before ends, so half as many instants are converted.
    typed = {
        text: datetime.fromisoformat(text).astimezone(context.zone.info).strftime("%Y-%m-%dT%H:%M")
        for text in {*(one.at for one in buckets), *(one.until for one in buckets)}
    }
    parts = []
    for bucket in buckets:
        since, until = typed[bucket.at], typed[bucket.until]
        figures = {
            "ok": count(bucket.ok_count),
            "not_ok": count(bucket.not_ok_count),
            "p50": span(bucket.p50_seconds, units),
            "p95": span(bucket.p95_seconds, units),
        }
        title = context.text("chart.part", **figures)
        title = f"{since.replace('T', ' ')} \N{EN DASH} {until[11:]}: {title}"
        parts.append(
            Part(title, since, f"/deliveries?{urlencode({'since': since, 'until': until})}")
        )
    return parts


async def _first_steps(context: Context, summary: Summary) -> FirstSteps | None:
    """Return the first steps; None once an endpoint and an event exist."""
    counts = summary.endpoints
    has_endpoint = bool(counts.active_count + counts.paused_count + counts.disabled_count)
    if has_endpoint and (summary.deliveries.succeeded_count or summary.backlog.pending_count):
        return None
    events = await context.operations.events.page(context.who, EventsQuery.of(limit=1))
    if has_endpoint and events.items:
        return None
    deliveries = await context.operations.deliveries.page(context.who, DeliveriesQuery.of(limit=1))
    return FirstSteps(
        has_endpoint,
        bool(events.items),
        bool(deliveries.items),
        await _insert_statement(context, has_endpoint=has_endpoint),
    )


async def _insert_statement(context: Context, *, has_endpoint: bool) -> str:
    """Return the statement of an event that an endpoint subscribes to, with the sample of its type."""
    catalogue = context.operations.deployment.catalogue.types
    subscribed: list[str] = []
    if has_endpoint:
        query = EndpointsQuery.of(limit=SUBSCRIBED_MAX)
        for endpoint in (await context.operations.endpoints.page(context.who, query)).items:
            subscribed += [name for name in endpoint.event_types if not name.endswith("*")]
    ordinary = [name for name in catalogue if not is_operational(name)]
    preferred = [_EXAMPLE_TYPE] if _EXAMPLE_TYPE in catalogue else []
    event_type = next(iter([*subscribed, *preferred, *ordinary]), _EXAMPLE_TYPE)
    known = catalogue.get(event_type)
    sample = _EXAMPLE_DATA if known is None else known.sample or _EXAMPLE_DATA
    data = readable(sample).replace("'", "''")
    return f"INSERT INTO dispatcher.outbox (type, data)\nVALUES ('{event_type}', '{data}');"


async def problems(context: Context) -> web.StreamResponse:
    """Show the open problems; the bell of every page shows this page's list."""
    found = await context.operations.overview.problems(context.who)
    return context.page("problems.html", open_problems=found)


async def act(context: Context) -> web.StreamResponse:
    """Act on an endpoint with a problem, and show the outcome in place; without scripts as a page."""
    context.who.require(Role.OPERATOR)
    endpoint = await context.operations.endpoints.show(context.who, context.part("id"))
    is_in_place = "HX-Request" in context.request.headers
    try:
        outcome = await _ACTS[context.part("act")](context, endpoint.id)
    except DispatcherError as error:
        if not is_in_place:
            raise
        outcome = Outcome("bad", context.problem(error))
    template = "_outcome.html" if is_in_place else "problem_acted.html"
    return context.page(template, endpoint=endpoint, outcome=outcome)


async def _retry(context: Context, endpoint_id: str) -> Outcome:
    retry = await context.operations.recovery.retry(context.who, endpoint_id)
    waiting = f"{retry.waiting_count}{'+' if retry.capped else ''}"
    return Outcome(
        {"released": "good", "releasing": "good", "failed": "bad"}.get(retry.state, "plain"),
        context.text(f"retry.{retry.state}"),
        context.text(f"retry.{retry.state}_text", count=waiting),
        retry.attempt,
        f"/deliveries/{retry.delivery_id}" if retry.delivery_id else None,
        context.text("test.open"),
    )


async def _send_test(context: Context, endpoint_id: str) -> Outcome:
    test = await context.operations.test_events.send(
        context.who, endpoint_id, event_type=None, data=None
    )
    is_good = test.state == "succeeded"
    return Outcome(
        "good" if is_good else "bad",
        context.text("test.worked" if is_good else "test.failed"),
        "",
        test.attempts[0] if test.attempts else None,
        f"/deliveries/{test.id}",
        context.text("test.open"),
    )


async def _resend(context: Context, endpoint_id: str) -> Outcome:
    if not context.app.forms.take(f"{context.form.get('form_id', '')}/{endpoint_id}"):
        raise ConflictError(context.text("error.sent_before"))
    job = await context.operations.jobs.create(
        context.who,
        NewJob.of(kind="resend", filter=JobFilter.of(endpoint_id=endpoint_id, state="failed")),
    )
    return Outcome(
        "good",
        context.text("note.job_created"),
        href=f"/jobs/{job.id}",
        link=context.text("home.open_job"),
    )


async def _pause(context: Context, endpoint_id: str) -> Outcome:
    await context.operations.endpoints.pause(context.who, endpoint_id)
    return Outcome(
        "good",
        context.text("note.paused"),
        href=f"/webhooks/{endpoint_id}/resume",
        link=context.text("endpoint.resume"),
    )


_ACTS: Final = {"retry": _retry, "test": _send_test, "resend": _resend, "pause": _pause}


ROUTES: Final = (
    PageRoute("GET", "/", overview),
    PageRoute("GET", "/problems", problems),
    PageRoute(
        "POST", "/problems/{id}/{act:" + "|".join(_ACTS) + "}", act, seconds=TEST_SECONDS_MAX
    ),
)
