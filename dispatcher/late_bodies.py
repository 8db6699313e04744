"""Makes the bodies that fan-out could not make, because the endpoint's profile was missing.

Fan-out writes such a delivery without a body, and the delivery waits. Once the profile is
configured again, the endpoint's lane opens, the loader reads the delivery, finds no body and
calls `LateBodies.make`. The body is made from the stored event, inserted once (`ON CONFLICT DO
NOTHING`), and is the same for every attempt from then on.

A crash between insert and load changes nothing, because the next load finds the body. If Postgres
is away, `make` raises and the loader retries.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import date

import structlog

from dispatcher.core.envelope import encode
from dispatcher.core.errors import EncodingError
from dispatcher.core.masks import compile_mask
from dispatcher.core.model import DeliveryId
from dispatcher.core.profile import Profile
from dispatcher.runtime import probe
from dispatcher.store.bodies import Bodies, LateBody

_log = structlog.get_logger("dispatcher.late_bodies")

DELIVERIES_PER_STEP = 16
"""An event has up to 1 MiB of data, and its body about as much; a step holds both in memory."""


class LateBodies:
    """Bodies of deliveries whose profile was missing at fan-out; stateless."""

    def __init__(self, bodies: Bodies, profile_of: Callable[[str], Profile | None]) -> None:
        self._bodies = bodies
        self._profile_of = profile_of

    async def make(self, deliveries: Sequence[tuple[DeliveryId, date]]) -> frozenset[DeliveryId]:
        """Make the bodies of these deliveries (id, day) and return those that have one now.

        A delivery whose event does not fit the profile's format is cancelled. One whose profile is
        still missing, or whose event was erased, is left as it is.

        Raises:
            StoreUnavailableError: some may have been made; call again.
        """
        made: set[DeliveryId] = set()
        for start in range(0, len(deliveries), DELIVERIES_PER_STEP):
            made |= await self._step(deliveries[start : start + DELIVERIES_PER_STEP])
        return frozenset(made)

    async def _step(self, deliveries: Sequence[tuple[DeliveryId, date]]) -> set[DeliveryId]:
        bodies: list[LateBody] = []
        unencodable: list[DeliveryId] = []
        made: set[DeliveryId] = set()
        for row in await self._bodies.missing(deliveries):
            if row.event is None:
                made.add(row.delivery_id)
                continue
            profile = self._profile_of(row.profile)
            if profile is None:
                continue
            try:
                # In a thread, as a megabyte rewritten for JavaScript takes half a second.
                mask = compile_mask(row.include, row.exclude)
                encoded = await asyncio.to_thread(encode, profile, row.event, mask)
            except EncodingError as error:
                _log.warning(
                    "event.encoding_failed",
                    event_id=row.event.id,
                    profile=row.profile,
                    error=str(error),
                )
                unencodable.append(row.delivery_id)
            else:
                bodies.append(
                    LateBody(
                        row.delivery_id,
                        row.day,
                        row.event.id,
                        row.body_key,
                        encoded.body,
                        encoded.warnings,
                    )
                )
        await self._bodies.keep(bodies, unencodable)
        if bodies:
            _log.info("bodies.encoded_late", count=len(bodies))
        probe.hit("bodies.encoded_late", count=len(bodies), unencodable=len(unencodable))
        return made | {body.delivery_id for body in bodies}
