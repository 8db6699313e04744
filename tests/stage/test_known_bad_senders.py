"""The controls of F3 and F7: what we could not do ourselves is charged to the receiver, counted in attempts.

Real connections and the product's own sender; the known-bad variant is a subclass with one method changed.
"""

import errno
import os
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from dispatcher.core.model import HttpResponse, Outcome
from dispatcher.core.request import RequestTemplate
from dispatcher.core.secret import Secret
from dispatcher.core.signing import Signer
from dispatcher.delivery.endpoint import Endpoint
from dispatcher.delivery.sender import Sender as ProductSender
from dispatcher.delivery.types import AttemptResult, Entry
from dispatcher.outbound.pool import Connections, Exchange, NotAttempted, Target
from dispatcher.runtime.clock import SystemClock
from tests.support.deliveries import make_delivery, make_endpoint, make_entry, make_lane
from tests.support.raw_receiver import OK, RawReceiver, Wire, answering
from tests.support.sending import Sender, spawn
from tests.wire.vectors import PROFILES, SECRETS

IN_FLIGHT = 5


class ChargesWhatItCancels(ProductSender):
    """Known-bad: at the end of the grace a cancelled attempt is recorded as one that timed out."""

    def cancel_all(self) -> int:
        for exchange, _, _ in tuple(self._exchanges.values()):
            exchange.done(HttpResponse(Outcome.TIMEOUT, error="cancelled"))
        return super().cancel_all()


class ChargesShortages(Connections):
    """Known-bad: whatever keeps a connection from being opened is a failure to connect."""

    def _conclude(self, exchange: Exchange, result: HttpResponse | NotAttempted) -> None:
        if isinstance(result, NotAttempted):
            result = HttpResponse(Outcome.CONNECT_ERROR, error=result.reason)
        super()._conclude(exchange, result)


class Sending:
    """One of the two senders over a pool, and what it recorded and gave back."""

    def __init__(self, kind: type[ProductSender], pool: Connections, port: int) -> None:
        self.recorded: list[AttemptResult] = []
        self.handed_back: list[Any] = []
        recorder: Any = SimpleNamespace(add=self.recorded.append)
        self.sender = kind(pool, recorder, clock=SystemClock())
        profile = PROFILES["standard"]
        self._lane = make_lane(
            make_endpoint(
                profile=profile,
                target=Target("http", "127.0.0.1", port),
                template=RequestTemplate(
                    profile=profile,
                    target="/hook",
                    host_header="receiver.test",
                    user_agent="dispatcher/1",
                    custom_headers={},
                    signer=Signer(profile, [Secret(SECRETS["standard"])]),
                ),
            )
        )

    def start(self) -> None:
        for number in range(IN_FLIGHT):
            delivery = make_delivery(f"wh{number}")
            self.sender.start(make_entry(delivery, self._lane), delivery, self._ended)

    def _ended(self, entry: Entry, endpoint: Endpoint, succeeded: bool | None) -> None:
        del entry, endpoint
        self.handed_back.append(succeeded)


@pytest.mark.parametrize(
    ("kind", "charged"), [(ProductSender, 0), (ChargesWhatItCancels, IN_FLIGHT)]
)
async def test_f3_what_the_drain_cancels_is_charged_by_the_control_alone(
    sender: Sender, kind: type[ProductSender], charged: int
):
    async def holds(wire: Wire) -> None:
        await wire.request()
        await wire.gone.wait()

    async with RawReceiver(holds) as receiver:
        sending = Sending(kind, sender.pool, receiver.port)
        sending.start()
        await receiver.asked(IN_FLIGHT)
        sending.sender.cancel_all()
    assert len(sending.recorded) == charged
    assert sending.handed_back.count(None) == IN_FLIGHT - charged


@pytest.mark.parametrize(("kind", "charged"), [(Connections, 0), (ChargesShortages, IN_FLIGHT)])
async def test_f7_descriptors_that_ran_out_are_charged_by_the_control_alone(
    sender: Sender, monkeypatch: pytest.MonkeyPatch, kind: type[Connections], charged: int
):
    def refuse(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    pool = kind(sender.egress, spawn=spawn)
    async with RawReceiver(answering(OK)) as receiver:
        sending = Sending(ProductSender, pool, receiver.port)
        with monkeypatch.context() as patched:
            patched.setattr("dispatcher.outbound.dialer.socket.socket", refuse)
            sending.start()
            await sending.sender.idle.wait()
        assert receiver.connection_count == 0
    await pool.aclose()
    assert len(sending.recorded) == charged
    assert sending.handed_back.count(None) == IN_FLIGHT - charged
