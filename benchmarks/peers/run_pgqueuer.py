"""PgQueuer: batches of 100, each job a row of its log as well."""

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.models import Job
from pgqueuer.queries import Queries
from post import DATABASE_URL, JOBS, Poster


async def main() -> None:
    """Enqueues, waits, runs."""
    poster = Poster()
    pool = await asyncpg.create_pool(DATABASE_URL, min_size=2, max_size=10)
    queuer = PgQueuer.from_asyncpg_pool(pool)
    queries = Queries(queuer.connection)
    await queries.install()
    for first in range(0, JOBS, 1000):
        count = min(1000, JOBS - first)
        await queries.enqueue(["post"] * count, [b"{}"] * count, [0] * count)

    @queuer.entrypoint("post")
    async def post(_: Job) -> None:
        await poster.post()

    await poster.measure(lambda: queuer.run(batch_size=100))


uvloop.run(main())
