"""Rate limits: token buckets by key, of which only so many are kept.

A test event and a resend make this process send a request, so a person with a loop must not turn
them into a weapon (each endpoint and person has a limit of its own). The same buckets limit requests
by token, and wrong tokens by address. What is always true: memory is bounded; a bucket that is
forgotten for lack of room is one that was not used for longest, and starts full again.
"""

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic as system_monotonic
from typing import Final

from dispatcher.core.errors import TooManyError
from dispatcher.core.problems import problem
from dispatcher.core.rate import TokenBucket

KEYS_MAX: Final = 10_000
"""About 3 MB of buckets."""
SENDS_PER_SECOND: Final = 1.0
SENDS_BURST: Final = 10


class Buckets:
    """One bucket a key, all of one rate; used on the event loop alone."""

    def __init__(
        self,
        rate_per_second: float,
        burst: int,
        *,
        monotonic: Callable[[], float] = system_monotonic,
        keys_max: int = KEYS_MAX,
    ) -> None:
        self._rate_per_second = rate_per_second
        self._burst = burst
        self._monotonic = monotonic
        self._keys_max = keys_max
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def wait_seconds(self, key: str) -> float:
        """Return how long until there is a token again, 0 if there is one; takes none."""
        bucket = self._buckets.get(key)
        if bucket is None:
            return 0.0
        now = self._monotonic()
        return bucket.ready_at(now) - now

    def take(self, key: str, count: int = 1) -> float:
        """Take tokens and return 0, or return the seconds until there is one; see `TokenBucket.take`."""
        now = self._monotonic()
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(self._rate_per_second, self._burst)
            if len(self._buckets) > self._keys_max:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key)
        return 0.0 if bucket.take(now, count) else bucket.ready_at(now) - now


class SendLimits:
    """What one person may send to one endpoint by hand."""

    def __init__(self, *, monotonic: Callable[[], float] = system_monotonic) -> None:
        self._sends = Buckets(SENDS_PER_SECOND, SENDS_BURST, monotonic=monotonic)

    def take_send(self, actor_name: str, endpoint_id: str) -> None:
        """Count a test event or a resend.

        Raises:
            TooManyError: there were too many just now.
        """
        wait = self._sends.take(f"{actor_name}\n{endpoint_id}")
        if wait:
            raise TooManyError(problem("id", "too_many_sends", burst=SENDS_BURST), wait)
