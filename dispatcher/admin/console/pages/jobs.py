"""Jobs: list, one with its progress, a new one that is counted before it is created; pause, resume, cancel."""

from typing import Final
from urllib.parse import urlencode

from aiohttp import web

from dispatcher.admin.console.app import PageRoute
from dispatcher.admin.console.context import Context
from dispatcher.admin.console.filters import (
    DELIVERY_FIELDS,
    delivery_filter,
    parse_time,
    read_time,
    unreadable,
)
from dispatcher.admin.console.forms import problems_by_field
from dispatcher.admin.operations.context import Role
from dispatcher.admin.resources.delivery import HistoryFilter
from dispatcher.admin.resources.job import RATE_DEFAULT, JobFilter, JobsQuery, NewJob
from dispatcher.core.errors import ConflictError, InvalidRequestError, NotFoundError
from dispatcher.core.model import DeliveryState
from dispatcher.core.problems import problem
from dispatcher.core.response_classes import CLASSES

COUNT_SECONDS_MAX: Final = 60.0
OWN_CONDITIONS: Final = ("ids", "event_id", "recoverable", "finished_since")
"""Conditions that a list of deliveries does not have."""
CONDITIONS: Final = (*DELIVERY_FIELDS, *OWN_CONDITIONS)
FIELDS: Final = (*OWN_CONDITIONS, "kind", "to", "rate")
STATES: Final = ("pending", "running", "paused", "completed", "cancelled", "failed")


async def list_jobs(context: Context) -> web.StreamResponse:
    """Show jobs, newest first."""
    query, problems = JobsQuery(), {}
    values = {"state": context.query("state"), "cursor": context.query("cursor")}
    try:
        query = JobsQuery.of(**{name: one for name, one in values.items() if one is not None})
    except InvalidRequestError as error:
        problems = problems_by_field(context, error.problems)
    page = await context.operations.jobs.page(context.who, query)
    return context.page(
        "jobs.html",
        status=422 if problems else 200,
        page=page,
        problems=problems,
        states=STATES,
        is_filtered=context.query("state") is not None,
    )


async def new(context: Context) -> web.StreamResponse:
    """Show the form of a new job; with a filter also what it finds."""
    context.who.require(Role.OPERATOR)
    counted, problems, status = None, {}, 200
    if any(context.query(name) for name in CONDITIONS):
        try:
            counted = await context.operations.jobs.count(context.who, _read(context))
        except InvalidRequestError as error:
            problems, status = problems_by_field(context, error.problems), 422
        except (ConflictError, NotFoundError) as error:
            found = error.problem
            field = "filter" if found is None else found.field.removeprefix("filter.")
            problems = {field: context.problem(error)}
            status = 409 if isinstance(error, ConflictError) else 404
    return context.page(
        "job_new.html",
        status=status,
        counted=counted,
        problems=problems,
        states=tuple(DeliveryState),
        classes=tuple(CLASSES),
        chosen={name: _chosen(context, name) for name in ("state", "response")},
        typed=lambda text: _typed(context, text),
        types=tuple(context.operations.deployment.catalogue.types),
        rate=context.query("rate") or f"{RATE_DEFAULT:g}",
        given=_given(context),
    )


async def create(context: Context) -> web.StreamResponse:
    """Create the job of the address, once for each form."""
    context.who.require(Role.OPERATOR)
    job = _read(context)
    if not context.app.forms.take(context.form.get("form_id", "")):
        raise ConflictError(context.text("error.sent_before"))
    created = await context.operations.jobs.create(context.who, job)
    return context.go(f"/jobs/{created.id}", "note.job_created")


async def detail(context: Context) -> web.StreamResponse:
    """Show one job with its progress."""
    job = await context.operations.jobs.show(context.who, context.part("id"))
    ids = [one for one in (job.to, job.filter.get("endpoint_id")) if one]
    names = await context.operations.endpoints.names(context.who, ids)
    done = job.started_count + sum(job.skipped.values())
    return context.page(
        "job.html",
        job=job,
        names=names,
        done=done,
        is_going_on=job.state in {"pending", "running", "paused"},
        ended=job.succeeded_count + job.failed_count + job.cancelled_count,
    )


async def act(context: Context) -> web.StreamResponse:
    """Pause, resume or cancel a job."""
    job_id = context.part("id")
    match context.part("act"):
        case "pause":
            await context.operations.jobs.pause(context.who, job_id)
        case "resume":
            await context.operations.jobs.resume(context.who, job_id)
        case _:
            await context.operations.jobs.cancel(context.who, job_id)
    return context.go(f"/jobs/{job_id}", "note.job_changed")


def _read(context: Context) -> NewJob:
    """Return the job of the address.

    Raises:
        InvalidRequestError: has all problems.
    """
    asked = delivery_filter(context)
    query, texts = asked.query, asked.problems
    finished_since = read_time(context, "finished_since", texts)
    problems = unreadable(texts)
    if query.test:
        problems.append(problem("test", "test_not_resendable"))
    try:
        rate = float(context.query("rate") or RATE_DEFAULT)
    except ValueError:
        rate = RATE_DEFAULT
        problems.append(problem("rate", "not_a_number"))
    if problems:
        raise InvalidRequestError(problems)
    values = {name: getattr(query, name) for name in HistoryFilter.model_fields}
    values["event_id"] = context.query("event_id")
    values["ids"] = context.request.query.getall("ids", []) or None
    values["label"] = [f"{name}={text}" for name, text in (query.label or {}).items()] or None
    recoverable = True if context.query("recoverable") else None
    try:
        return NewJob.of(
            kind=context.query("kind") or "resend",
            filter=JobFilter.of(**values, recoverable=recoverable, finished_since=finished_since),
            to=context.query("to"),
            rate_per_second=rate,
        )
    except InvalidRequestError as error:
        raise InvalidRequestError(
            [
                one.at("rate" if one.field == "rate_per_second" else one.field)
                for one in error.problems
            ]
        ) from None


def _chosen(context: Context, name: str) -> list[str]:
    """Return the values of a condition that takes several."""
    values = ",".join(context.request.query.getall(name, []))
    return [one.strip() for one in values.split(",") if one.strip()]


def _typed(context: Context, text: str | None) -> str:
    """Return a time of the address as a browser's field shows it, in the viewer's zone; else the text itself."""
    at = None if text is None else parse_time(text, context.zone)
    if at is None:
        return text or ""
    try:
        return f"{at.astimezone(context.zone.info):%Y-%m-%dT%H:%M:%S}"
    except OverflowError:
        return text or ""


def _given(context: Context) -> str:
    """Return the job of the address as a query, for the form that creates it."""
    own = [
        (name, text)
        for name in FIELDS
        for text in context.request.query.getall(name, [])
        if text.strip()
    ]
    return "&".join(filter(None, (delivery_filter(context).carried(), urlencode(own))))


ROUTES: Final = (
    PageRoute("GET", "/jobs", list_jobs),
    PageRoute("GET", "/jobs/new", new, seconds=COUNT_SECONDS_MAX),
    PageRoute("POST", "/jobs/new", create),
    PageRoute("GET", "/jobs/{id}", detail),
    PageRoute("POST", "/jobs/{id}/{act:pause|resume|cancel}", act),
)
