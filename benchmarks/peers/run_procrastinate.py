"""Procrastinate: 64 jobs at once."""

import asyncio
import logging

from post import DATABASE_URL, JOBS, Poster
from procrastinate import App, PsycopgConnector


async def main() -> None:
    """Enqueues, waits, runs."""
    logging.disable(logging.WARNING)
    poster = Poster()
    app = App(connector=PsycopgConnector(conninfo=DATABASE_URL, max_size=10))

    @app.task(name="post")
    async def post(number: int) -> None:  # noqa: ARG001 -- what tells the jobs apart
        await poster.post()

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for first in range(0, JOBS, 1000):
            await post.batch_defer_async(
                *({"number": n} for n in range(first, min(first + 1000, JOBS)))
            )
        await poster.measure(
            lambda: app.run_worker_async(concurrency=64, install_signal_handlers=False)
        )


asyncio.run(main())
