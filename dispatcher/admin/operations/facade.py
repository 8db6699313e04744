"""All operations of a deployment in one hand, as API and console take them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from dispatcher.admin.operations.audit import Audit
from dispatcher.admin.operations.deliveries import DeliveryOperations
from dispatcher.admin.operations.deployment import Deployment
from dispatcher.admin.operations.endpoints import Endpoints
from dispatcher.admin.operations.events import Events
from dispatcher.admin.operations.explain import Explainer
from dispatcher.admin.operations.inspection import Inspection
from dispatcher.admin.operations.overview import Overview
from dispatcher.admin.operations.rotation import Rotation
from dispatcher.admin.operations.system import System
from dispatcher.admin.operations.tail import Tail
from dispatcher.admin.operations.tokens import Tokens
from dispatcher.admin.operations.trial import Trial
from dispatcher.outbound.client import Gate


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """Every use case; each takes the actor first and checks its role and tenant itself."""

    deployment: Deployment
    endpoints: Endpoints
    rotation: Rotation
    trial: Trial
    deliveries: DeliveryOperations
    inspection: Inspection
    events: Events
    explanation: Explainer
    tokens: Tokens
    audit: Audit
    overview: Overview
    system: System
    tail: Tail
    """Its `run` is a task of the daemon."""

    @classmethod
    def of(
        cls, deployment: Deployment, gate: Gate, tested: Callable[[str], None] = lambda _: None
    ) -> Self:
        """Return the operations of a deployment; test events use `gate`, and `tested` is called for each."""
        return cls(
            deployment=deployment,
            endpoints=Endpoints(deployment),
            rotation=Rotation(deployment),
            trial=Trial(deployment, gate, tested),
            deliveries=DeliveryOperations(deployment),
            inspection=Inspection(deployment),
            events=Events(deployment),
            explanation=Explainer(deployment),
            tokens=Tokens(deployment),
            audit=Audit(deployment),
            overview=Overview(deployment),
            system=System(deployment),
            tail=Tail(deployment),
        )
