"""All operations of a deployment in one hand, as API and console take them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from dispatcher.admin.operations.access import Access
from dispatcher.admin.operations.audit import Audit
from dispatcher.admin.operations.content_filters import ContentFilters
from dispatcher.admin.operations.context import Deployment
from dispatcher.admin.operations.deliveries import DeliveryOperations
from dispatcher.admin.operations.delivery_report import DeliveryReports
from dispatcher.admin.operations.endpoints import Endpoints
from dispatcher.admin.operations.event_types import EventTypes
from dispatcher.admin.operations.events import Events
from dispatcher.admin.operations.explain import Explainer
from dispatcher.admin.operations.jobs import JobOperations
from dispatcher.admin.operations.names import Names
from dispatcher.admin.operations.notifications import NotificationOperations
from dispatcher.admin.operations.overview import Overview
from dispatcher.admin.operations.portal_links import PortalLinkOperations
from dispatcher.admin.operations.published_keys import PublishedKeys
from dispatcher.admin.operations.publishing import Publisher
from dispatcher.admin.operations.pull import Pull
from dispatcher.admin.operations.recovery import Recovery
from dispatcher.admin.operations.request_preview import RequestPreviews
from dispatcher.admin.operations.rotation import Rotation
from dispatcher.admin.operations.schedule import Schedule
from dispatcher.admin.operations.signature_diagnosis import SignatureDiagnosis
from dispatcher.admin.operations.system import System
from dispatcher.admin.operations.tail import Tail
from dispatcher.admin.operations.test_events import EventTester
from dispatcher.admin.operations.tokens import Tokens
from dispatcher.config.database_url import UrlSource
from dispatcher.outbound.client import HttpClient
from dispatcher.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """Every use case; each takes the actor first and checks its role and tenant itself."""

    deployment: Deployment
    endpoints: Endpoints
    rotation: Rotation
    request_previews: RequestPreviews
    published_keys: PublishedKeys
    test_events: EventTester
    recovery: Recovery
    schedule: Schedule
    deliveries: DeliveryOperations
    jobs: JobOperations
    delivery_reports: DeliveryReports
    signature_diagnosis: SignatureDiagnosis
    events: Events
    event_types: EventTypes
    explanation: Explainer
    content_filters: ContentFilters
    names: Names
    notifications: NotificationOperations
    tokens: Tokens
    access: Access
    portal_links: PortalLinkOperations
    audit: Audit
    overview: Overview
    system: System
    tail: Tail
    """Its `run` is a task of the daemon."""
    pull: Pull
    """Its `run` and `listen` are tasks of the daemon."""

    @classmethod
    def of(
        cls,
        deployment: Deployment,
        http_client: HttpClient,
        tested: Callable[[str], None] = lambda _: None,
        publisher: Publisher | None = None,
        listen_url: str | UrlSource | None = None,
        metrics: Metrics | None = None,
    ) -> Self:
        """Return the operations of a deployment.

        `tested` is called for each test event. Without `publisher` each event is committed on its own, and
        without `listen_url` a poll that waits reads every second. Attempts that are pulled are counted in `metrics`.
        """
        return cls(
            deployment=deployment,
            endpoints=Endpoints(deployment),
            rotation=Rotation(deployment),
            request_previews=RequestPreviews(deployment),
            published_keys=PublishedKeys(deployment),
            test_events=EventTester(deployment, http_client, tested),
            recovery=Recovery(deployment),
            schedule=Schedule(deployment),
            deliveries=DeliveryOperations(deployment),
            jobs=JobOperations(deployment),
            delivery_reports=DeliveryReports(deployment),
            signature_diagnosis=SignatureDiagnosis(deployment),
            events=Events(deployment, publisher),
            event_types=EventTypes(deployment),
            explanation=Explainer(deployment),
            content_filters=ContentFilters(deployment),
            names=Names(deployment),
            notifications=NotificationOperations(deployment),
            tokens=Tokens(deployment),
            access=Access(deployment),
            portal_links=PortalLinkOperations(deployment),
            audit=Audit(deployment),
            overview=Overview(deployment),
            system=System(deployment),
            tail=Tail(deployment),
            pull=Pull(deployment, listen_url, metrics),
        )
