"""The first page: is it healthy now, how was the last day, and who is in trouble."""

from typing import Final

from aiohttp import web

from dispatcher.admin.console import charts
from dispatcher.admin.console.app import PageRoute
from dispatcher.admin.console.context import Context


async def overview(context: Context) -> web.StreamResponse:
    """Show the figures of the deployment, or of the viewer's tenant."""
    summary = await context.operations.overview.summary(context.who)
    buckets = summary.buckets
    return context.page(
        "overview.html",
        summary=summary,
        traffic=charts.bars([(one.ok_count, one.not_ok_count) for one in buckets]),
        latency=charts.lines(
            [[one.p50_seconds for one in buckets], [one.p95_seconds for one in buckets]]
        ),
    )


ROUTES: Final = (PageRoute("GET", "/", overview),)
