"""A replica with a long name never heard a NOTIFY: its channel of proof was longer than Postgres allows."""

import pytest

from dispatcher.runtime import probe
from dispatcher.store.listener import NotifyListener
from tests.support.sending import spawn

pytestmark = pytest.mark.postgres


async def test_a_listener_with_a_long_name_comes_up(database):
    listener = NotifyListener(
        database, control=lambda _: None, arrived=lambda: None, name="r" * 200
    )
    with probe.listen() as heard:
        running = spawn(listener.run())
        try:
            await heard.wait("listener.connected")
            assert listener.is_up
        finally:
            listener.stop()
            await running
