"""The first page: is it healthy now, how was the last day, and who is in trouble."""

from typing import Final

from aiohttp import web

from dispatcher.admin.console import charts
from dispatcher.admin.console.site import Route
from dispatcher.admin.console.visit import Visit


async def overview(visit: Visit) -> web.StreamResponse:
    """Shows the figures of the deployment, or of the viewer's tenant."""
    summary = await visit.operations.overview.summary(visit.who)
    buckets = summary.buckets
    return visit.page(
        "overview.html",
        summary=summary,
        traffic=charts.bars([(one.ok_count, one.not_ok_count) for one in buckets]),
        latency=charts.lines(
            [[one.p50_seconds for one in buckets], [one.p95_seconds for one in buckets]]
        ),
    )


ROUTES: Final = (Route("GET", "/", overview),)
