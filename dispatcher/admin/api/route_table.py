"""The table of routes: every operation of the API."""

from typing import Final

from dispatcher.admin.api import (
    access,
    content_filters,
    deliveries,
    endpoints,
    events,
    jobs,
    notifications,
    pull,
    schedule,
    system,
)
from dispatcher.admin.api.batch_decoder import EVENT_BYTES_MAX
from dispatcher.admin.api.body import BATCH_BYTES_MAX
from dispatcher.admin.api.route import SECONDS_MAX, Route
from dispatcher.admin.operations.context import Role
from dispatcher.admin.operations.deliveries import EXPORT_SECONDS_MAX
from dispatcher.admin.operations.new_event import NewEvent
from dispatcher.admin.resources import (
    audit,
    content_filter,
    delivery,
    endpoint,
    endpoint_recovery,
    event,
    job,
    notification,
    request_preview,
    secret,
    signature_diagnosis,
    token,
)
from dispatcher.admin.resources import pull as pull_resource
from dispatcher.admin.resources.access import PeoplePage, SessionPage
from dispatcher.admin.resources.portal_link import CreatedPortalLink, PortalLinkPage
from dispatcher.admin.resources.schedule import Rescheduled, SchedulePage
from dispatcher.admin.resources.system import SystemStatus

TEST_SECONDS_MAX: Final = 80.0
"""An endpoint's time-out is 60 s at most; the rest is the database's."""
PUBLISH_SECONDS_MAX: Final = 70.0
"""A client waits for 60 s at most (`Prefer: wait`)."""
CAPTURE_BYTES_MAX: Final = 4 << 20
"""A body of 1 MiB as a JSON string, in which a character may take six bytes, and its headers."""
POLL_SECONDS_MAX: Final = 50.0
"""A poll waits for 30 s at most."""
COUNT_SECONDS_MAX: Final = 60.0
"""A dry run counts for 45 s at most."""

ROUTES: Final = (
    Route(
        method="GET", path="/endpoints", handler=endpoints.list_endpoints,
        role=Role.VIEWER, response=endpoint.EndpointPage, problems=(404,),
    ),
    Route(
        method="POST", path="/endpoints", handler=endpoints.create_endpoint,
        role=Role.ADMIN, response=endpoint.ChangedEndpoint, status=201, problems=(404, 409),
    ),
    Route(
        method="POST", path="/endpoints/preview", handler=endpoints.preview_endpoint,
        role=Role.ADMIN, response=request_preview.PreviewedRequest, problems=(404, 409),
    ),
    Route(
        method="GET", path="/endpoints/{id}", handler=endpoints.show_endpoint,
        role=Role.VIEWER, response=endpoint.Endpoint, problems=(404,),
        also={304: "It is the version in If-None-Match."},
    ),
    Route(
        method="PATCH", path="/endpoints/{id}", handler=endpoints.change_endpoint,
        role=Role.ADMIN, response=endpoint.ChangedEndpoint, problems=(404, 409, 412),
    ),
    Route(
        method="DELETE", path="/endpoints/{id}", handler=endpoints.delete_endpoint,
        role=Role.ADMIN, response=None, status=204, problems=(404, 412),
    ),
    Route(
        method="POST", path="/endpoints/{id}/preview", handler=endpoints.preview_change,
        role=Role.ADMIN, response=request_preview.PreviewedRequest, problems=(404, 409),
    ),
    Route(
        method="POST", path="/endpoints/{id}/test", handler=endpoints.send_test,
        role=Role.OPERATOR, response=delivery.DeliveryWithAttempts, problems=(404, 409),
        bytes_max=EVENT_BYTES_MAX, seconds_max=TEST_SECONDS_MAX,
    ),
    Route(
        method="GET", path="/endpoints/{id}/poll", handler=pull.poll_deliveries,
        role=Role.OPERATOR, response=pull_resource.PulledPage, problems=(404, 409),
        seconds_max=POLL_SECONDS_MAX, for_endpoint_tokens=True,
    ),
    Route(
        method="POST", path="/endpoints/{id}/poll", handler=pull.settle_deliveries,
        role=Role.OPERATOR, response=pull_resource.SettledLeases, problems=(404,),
        for_endpoint_tokens=True,
    ),
    Route(
        method="GET", path="/endpoints/{id}/failures", handler=endpoints.list_failures,
        role=Role.VIEWER, response=endpoint_recovery.EndpointFailures, problems=(404,),
    ),
    Route(
        method="POST", path="/endpoints/{id}/retry", handler=endpoints.retry_endpoint,
        role=Role.OPERATOR, response=endpoint_recovery.EndpointRetry, problems=(404, 409),
        seconds_max=TEST_SECONDS_MAX,
    ),
    Route(
        method="POST", path="/endpoints/{id}/pause", handler=endpoints.pause_endpoint,
        role=Role.OPERATOR, response=endpoint.Endpoint, problems=(404, 409),
    ),
    Route(
        method="POST", path="/endpoints/{id}/resume", handler=endpoints.resume_endpoint,
        role=Role.OPERATOR, response=endpoint.Endpoint, problems=(404,),
    ),
    Route(
        method="POST", path="/endpoints/{id}/recover", handler=jobs.recover_endpoint,
        role=Role.OPERATOR, response=job.Job, status=201, problems=(404, 409),
        also={200: "The count of a dry run."}, also_responses={200: job.JobCount},
        seconds_max=COUNT_SECONDS_MAX,
    ),
    Route(
        method="POST", path="/endpoints/{id}/rotate-secret", handler=endpoints.rotate_secret,
        role=Role.ADMIN, response=secret.RotationAnswer, problems=(404, 409),
    ),
    Route(
        method="GET", path="/endpoints/{id}/secret", handler=endpoints.reveal_secret,
        role=Role.ADMIN, response=secret.RevealedSecret, problems=(404, 409),
    ),
    Route(
        method="GET", path="/event-types", handler=events.list_event_types,
        role=Role.VIEWER, response=event.EventTypePage,
    ),
    Route(
        method="GET", path="/event-types/usage", handler=events.list_event_type_usage,
        role=Role.VIEWER, response=event.EventTypeUsagePage,
    ),
    Route(
        method="GET", path="/event-types/{name}", handler=events.show_event_type,
        role=Role.VIEWER, response=event.CheckedEventType, problems=(404,),
    ),
    Route(
        method="GET", path="/events", handler=events.list_events,
        role=Role.VIEWER, response=event.EventPage, problems=(404,),
    ),
    Route(
        method="POST", path="/events", handler=events.publish_event,
        role=Role.OPERATOR, response=event.Event, status=201, problems=(404, 409),
        also={200: "The id is known: the first event of that id, and nothing new. Or the results of a batch."},
        also_responses={200: event.EventOrBatch}, batch=events.publish_events, read=NewEvent.read,
        bytes_max=BATCH_BYTES_MAX, seconds_max=PUBLISH_SECONDS_MAX,
    ),
    Route(
        method="GET", path="/events/{id}", handler=events.show_event,
        role=Role.VIEWER, response=event.EventWithDeliveries, problems=(404,),
    ),
    Route(
        method="POST", path="/events/{id}/release", handler=events.release_event,
        role=Role.OPERATOR, response=event.EventWithDeliveries, problems=(404, 409),
    ),
    Route(
        method="GET", path="/events/{id}/explain", handler=events.explain_event,
        role=Role.VIEWER, response=event.Explanation, problems=(404,),
    ),
    Route(
        method="POST", path="/content-filters/test", handler=content_filters.test_content_filter,
        role=Role.VIEWER, response=content_filter.FilterTestResult,
    ),
    Route(
        method="GET", path="/deliveries", handler=deliveries.list_deliveries,
        role=Role.VIEWER, response=delivery.DeliveryPage, problems=(404,),
    ),
    Route(
        method="GET", path="/deliveries/export", handler=deliveries.export_deliveries,
        role=Role.VIEWER, response=delivery.ExportedDeliveries, problems=(404,),
        text_type="text/csv", seconds_max=EXPORT_SECONDS_MAX + SECONDS_MAX,
    ),
    Route(
        method="GET", path="/deliveries/{id}", handler=deliveries.show_delivery,
        role=Role.VIEWER, response=delivery.DeliveryWithAttempts, problems=(404,),
    ),
    Route(
        method="POST", path="/deliveries/{id}/resend", handler=deliveries.resend_delivery,
        role=Role.OPERATOR, response=delivery.Delivery, status=202, problems=(404, 409),
    ),
    Route(
        method="POST", path="/deliveries/{id}/cancel", handler=deliveries.cancel_delivery,
        role=Role.OPERATOR, response=delivery.DeliveryWithAttempts, problems=(404, 409),
    ),
    Route(
        method="POST", path="/deliveries/{id}/diagnose-signature", handler=deliveries.diagnose_signature,
        role=Role.OPERATOR, response=signature_diagnosis.SignatureFinding, problems=(404, 409),
        bytes_max=CAPTURE_BYTES_MAX,
    ),
    Route(
        method="GET", path="/schedule", handler=schedule.list_schedule,
        role=Role.VIEWER, response=SchedulePage, problems=(404,),
    ),
    Route(
        method="POST", path="/schedule/retry", handler=schedule.retry_scheduled,
        role=Role.OPERATOR, response=Rescheduled, problems=(404,), seconds_max=COUNT_SECONDS_MAX,
    ),
    Route(
        method="POST", path="/schedule/postpone", handler=schedule.postpone_scheduled,
        role=Role.OPERATOR, response=Rescheduled, problems=(404,), seconds_max=COUNT_SECONDS_MAX,
    ),
    Route(
        method="POST", path="/schedule/cancel", handler=schedule.cancel_scheduled,
        role=Role.OPERATOR, response=Rescheduled, problems=(404,), seconds_max=COUNT_SECONDS_MAX,
    ),
    Route(
        method="GET", path="/notifications", handler=notifications.list_notifications,
        role=Role.ADMIN, response=notification.NotificationPage, problems=(404,),
    ),
    Route(
        method="POST", path="/notifications", handler=notifications.create_notification,
        role=Role.ADMIN, response=notification.Notification, status=201, problems=(404, 409),
    ),
    Route(
        method="GET", path="/notifications/{id}", handler=notifications.show_notification,
        role=Role.ADMIN, response=notification.NotificationWithProblems, problems=(404,),
    ),
    Route(
        method="PATCH", path="/notifications/{id}", handler=notifications.change_notification,
        role=Role.ADMIN, response=notification.Notification, problems=(404, 409),
    ),
    Route(
        method="POST", path="/notifications/{id}/test", handler=notifications.test_notification,
        role=Role.ADMIN, response=notification.Notification, problems=(404,),
    ),
    Route(
        method="DELETE", path="/notifications/{id}", handler=notifications.delete_notification,
        role=Role.ADMIN, response=None, status=204, problems=(404,),
    ),
    Route(
        method="GET", path="/jobs", handler=jobs.list_jobs,
        role=Role.VIEWER, response=job.JobPage, problems=(404,),
    ),
    Route(
        method="POST", path="/jobs", handler=jobs.create_job,
        role=Role.OPERATOR, response=job.Job, status=201, problems=(404, 409),
        also={200: "The count of a dry run."}, also_responses={200: job.JobCount},
        seconds_max=COUNT_SECONDS_MAX,
    ),
    Route(
        method="GET", path="/jobs/{id}", handler=jobs.show_job,
        role=Role.VIEWER, response=job.Job, problems=(404,),
    ),
    Route(
        method="POST", path="/jobs/{id}/pause", handler=jobs.pause_job,
        role=Role.OPERATOR, response=job.Job, problems=(404, 409),
    ),
    Route(
        method="POST", path="/jobs/{id}/resume", handler=jobs.resume_job,
        role=Role.OPERATOR, response=job.Job, problems=(404, 409),
    ),
    Route(
        method="POST", path="/jobs/{id}/cancel", handler=jobs.cancel_job,
        role=Role.OPERATOR, response=job.Job, problems=(404, 409),
    ),
    Route(
        method="GET", path="/tokens", handler=access.list_tokens,
        role=Role.ADMIN, response=token.TokenPage, problems=(404,),
    ),
    Route(
        method="POST", path="/tokens", handler=access.create_token,
        role=Role.ADMIN, response=token.CreatedToken, status=201, problems=(404, 409),
    ),
    Route(
        method="DELETE", path="/tokens/{id}", handler=access.revoke_token,
        role=Role.ADMIN, response=None, status=204, problems=(404,),
    ),
    Route(
        method="GET", path="/sessions", handler=access.list_sessions,
        role=Role.ADMIN, response=SessionPage, problems=(404,),
    ),
    Route(
        method="DELETE", path="/sessions/{id}", handler=access.end_session,
        role=Role.ADMIN, response=None, status=204, problems=(404,),
    ),
    Route(
        method="GET", path="/portal-links", handler=access.list_portal_links,
        role=Role.OPERATOR, response=PortalLinkPage, problems=(404,),
    ),
    Route(
        method="POST", path="/portal-links", handler=access.create_portal_link,
        role=Role.OPERATOR, response=CreatedPortalLink, status=201, problems=(404,),
    ),
    Route(
        method="DELETE", path="/portal-links/{id}", handler=access.revoke_portal_link,
        role=Role.OPERATOR, response=None, status=204, problems=(404,),
    ),
    Route(
        method="GET", path="/people", handler=access.list_people,
        role=Role.ADMIN, response=PeoplePage, problems=(404,),
    ),
    Route(
        method="GET", path="/audit", handler=access.list_audit,
        role=Role.ADMIN, response=audit.AuditPage, problems=(404,),
    ),
    Route(
        method="GET", path="/system", handler=system.show_system,
        role=Role.VIEWER, response=SystemStatus, problems=(),
    ),
)  # fmt: skip
