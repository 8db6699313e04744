"""An endpoint as the stages use it: compiled once from its row, then only read.

If this deployment's configuration and the row do not fit (a profile file is missing, a secret does
not decrypt, plain http is not allowed, a URL or a header is invalid), the reason becomes the
endpoint's `problem`. Its deliveries wait until the problem is fixed, because the configuration may
be the mistake, and no other endpoint is affected.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from dispatcher.core.credentials import Credentials
from dispatcher.core.filters import ContentFilter
from dispatcher.core.masks import Mask
from dispatcher.core.matching import Subscription
from dispatcher.core.model import EndpointId, EndpointState, Reason
from dispatcher.core.order import Ordering
from dispatcher.core.outcome import RetryPolicy
from dispatcher.core.profile import Profile
from dispatcher.core.request import RequestTemplate
from dispatcher.outbound.pool import Target


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Endpoint:
    """The compiled settings of an endpoint; compared by identity."""

    id: EndpointId
    number: int
    """The number by which deliveries refer to the endpoint."""
    revision: int
    """The revision of the URL and the headers."""
    tenant: str
    name: str
    url: str
    ca_pem: str | None
    credentials: Credentials | None
    """The grant and the client certificate; None: it has neither."""
    profile_name: str
    profile: Profile | None
    state: EndpointState
    subscription: Subscription
    label_filter: Mapping[str, str | list[str]]
    content_filter: ContentFilter | None
    is_pulled: bool
    """Its receiver fetches the deliveries; lanes send nothing."""
    mask: Mask | None
    """Which parts of the data it gets; None: all of them."""
    body_key: str
    """Under what its bodies are stored: its profile, which endpoints without a mask share, or a key of its own."""
    shard: int
    max_concurrency: int
    rate_limit: float | None
    """Attempts per second; None: no limit."""
    timeout_seconds: float
    retry_policy: RetryPolicy
    ordering: Ordering = Ordering.NONE
    template: RequestTemplate | None
    target: Target | None
    host_key: tuple[str, int] | None
    problem: Reason | None
    """Why requests cannot be sent, so that all deliveries wait; None if the endpoint is usable."""
    problem_detail: str
    """A description of the problem for an operator."""
    secrets_change_at: datetime | None
    """When an old secret stops signing and the endpoint must be compiled again."""
