"""`dispatcher delivery list --watch`: the newest deliveries, and each change of them, until Ctrl-C.

Every `POLL_SECONDS` the newest page is read, and further pages by cursor until one has no new delivery, at most
`PAGES_MAX`. A delivery is printed when it appears and when its state or its number of attempts has changed, if it is
on such a page. The states of the latest `KEPT_MAX` deliveries are kept. While Postgres is unavailable, the command
waits for it.
"""

import asyncio
import signal
import sys
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from dispatcher.admin.operations.deliveries import DeliveryOperations
from dispatcher.admin.resources.delivery import DeliveriesQuery, Delivery
from dispatcher.cli.output import Output, say_data, say_json, say_table, tell, warn
from dispatcher.cli.session import Session
from dispatcher.core.errors import StoreUnavailableError

POLL_SECONDS: Final = 1.0
PAGES_MAX: Final = 5
PAGE_DELIVERIES: Final = 100
"""Deliveries of a page after the first one, which has as many as were asked for."""
KEPT_MAX: Final = 5_000


async def watch_deliveries(session: Session, query: DeliveriesQuery, output: Output) -> None:
    """Print deliveries until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    watch = _Watch(session, query, output)
    is_available = True
    while not stop.is_set():
        try:
            await watch.poll()
            is_available = True
        except StoreUnavailableError as error:
            if is_available:
                warn(f"{error}; waiting for Postgres")
            is_available = False
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await stop.wait()
        except TimeoutError:
            pass


class _Watch:
    """The deliveries that were printed, and how."""

    def __init__(self, session: Session, query: DeliveriesQuery, output: Output) -> None:
        self._session = session
        self._operations = DeliveryOperations(session.deployment)
        self._query = query
        self._output = output
        self._known: OrderedDict[str, tuple[str, int]] | None = None
        """State and attempts by id, the latest at the end; None before the first poll."""
        self._widths: list[int] = []

    async def poll(self) -> None:
        """Print the deliveries that are new or have changed, the oldest first."""
        found: list[Delivery] = []
        cursor, is_first = None, self._known is None
        known = OrderedDict() if self._known is None else self._known
        for _ in range(1 if is_first else PAGES_MAX):
            limit = self._query.limit if is_first else PAGE_DELIVERIES
            query = self._query.model_copy(update={"cursor": cursor, "limit": limit})
            page = await self._operations.page(self._session.actor, query)
            new = [one for one in page.items if known.get(one.id) != _version(one)]
            found += new
            cursor = page.next_cursor
            if cursor is None or all(one.id in known for one in page.items):
                break
        else:
            if not is_first:
                tell("more deliveries than are shown: use a filter")
        for one in reversed(found):
            known[one.id] = _version(one)
            known.move_to_end(one.id)
        while len(known) > KEPT_MAX:
            known.popitem(last=False)
        self._known = known
        if found:
            await self._print(found[::-1])

    async def _print(self, deliveries: Sequence[Delivery]) -> None:
        from dispatcher.cli.delivery import columns  # noqa: PLC0415 -- it imports this module

        match self._output:
            case Output.JSON:
                for one in deliveries:
                    say_json(one, indent=False)
            case Output.YAML:
                for one in deliveries:
                    sys.stdout.write("---\n")
                    say_data(one, Output.YAML)
            case _:
                names = await self._session.endpoint_names(one.endpoint_id for one in deliveries)
                last = await self._operations.last_attempts(self._session.actor, deliveries)
                shown = columns(names, last)
                say_table(deliveries, shown, "", self._output, widths=self._widths)
        sys.stdout.flush()


def _version(delivery: Delivery) -> tuple[str, int]:
    return delivery.state, delivery.attempt_count
