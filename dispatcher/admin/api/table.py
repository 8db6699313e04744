"""The table of routes: everything the API answers."""

from typing import Final

from dispatcher.admin.api import access, deliveries, endpoints, events
from dispatcher.admin.api.body import EVENT_BODY_BYTES_MAX
from dispatcher.admin.api.routes import Route
from dispatcher.admin.operations.deployment import Role
from dispatcher.admin.resources import audit, delivery, endpoint, event, token

TEST_SECONDS_MAX: Final = 80.0
"""An endpoint's time-out is 60 s at most; the rest is the database's."""
RESEND_SECONDS_MAX: Final = 60.0

ROUTES: Final = (
    Route(
        method="GET", path="/endpoints", handler=endpoints.list_endpoints,
        role=Role.VIEWER, answer=endpoint.EndpointPage, problems=(404,),
    ),
    Route(
        method="POST", path="/endpoints", handler=endpoints.create_endpoint,
        role=Role.ADMIN, answer=endpoint.ChangedEndpoint, status=201, problems=(404, 409),
    ),
    Route(
        method="GET", path="/endpoints/{id}", handler=endpoints.show_endpoint,
        role=Role.VIEWER, answer=endpoint.Endpoint, problems=(404,),
        also={304: "It is the version in If-None-Match."},
    ),
    Route(
        method="PATCH", path="/endpoints/{id}", handler=endpoints.change_endpoint,
        role=Role.ADMIN, answer=endpoint.ChangedEndpoint, problems=(404, 409, 412),
    ),
    Route(
        method="DELETE", path="/endpoints/{id}", handler=endpoints.delete_endpoint,
        role=Role.ADMIN, answer=None, status=204, problems=(404, 412),
    ),
    Route(
        method="POST", path="/endpoints/{id}/test", handler=endpoints.send_test,
        role=Role.OPERATOR, answer=delivery.DeliveryWithAttempts, problems=(404, 409),
        bytes_max=EVENT_BODY_BYTES_MAX, seconds_max=TEST_SECONDS_MAX,
    ),
    Route(
        method="POST", path="/endpoints/{id}/pause", handler=endpoints.pause_endpoint,
        role=Role.OPERATOR, answer=endpoint.Endpoint, problems=(404, 409),
    ),
    Route(
        method="POST", path="/endpoints/{id}/resume", handler=endpoints.resume_endpoint,
        role=Role.OPERATOR, answer=endpoint.Endpoint, problems=(404,),
    ),
    Route(
        method="POST", path="/endpoints/{id}/rotate-secret", handler=endpoints.rotate_secret,
        role=Role.ADMIN, answer=endpoint.RotationAnswer, problems=(404, 409),
    ),
    Route(
        method="GET", path="/endpoints/{id}/secret", handler=endpoints.reveal_secret,
        role=Role.ADMIN, answer=endpoint.RevealedSecret, problems=(404, 409),
    ),
    Route(
        method="GET", path="/event-types", handler=events.list_event_types,
        role=Role.VIEWER, answer=event.EventTypePage,
    ),
    Route(
        method="GET", path="/events", handler=events.list_events,
        role=Role.VIEWER, answer=event.EventPage, problems=(404,),
    ),
    Route(
        method="POST", path="/events", handler=events.publish_event,
        role=Role.OPERATOR, answer=event.Event, status=201, problems=(404, 409),
        also={200: "The id is known: the first event of that id, and nothing new."},
        bytes_max=EVENT_BODY_BYTES_MAX,
    ),
    Route(
        method="GET", path="/events/{id}", handler=events.show_event,
        role=Role.VIEWER, answer=event.EventWithDeliveries, problems=(404,),
    ),
    Route(
        method="POST", path="/events/{id}/release", handler=events.release_event,
        role=Role.OPERATOR, answer=event.EventWithDeliveries, problems=(404, 409),
    ),
    Route(
        method="GET", path="/events/{id}/explain", handler=events.explain_event,
        role=Role.VIEWER, answer=event.Explanation, problems=(404,),
    ),
    Route(
        method="GET", path="/deliveries", handler=deliveries.list_deliveries,
        role=Role.VIEWER, answer=delivery.DeliveryPage, problems=(404,),
    ),
    Route(
        method="POST", path="/deliveries/resend", handler=deliveries.resend_deliveries,
        role=Role.OPERATOR, answer=delivery.Resent, status=202, problems=(404,),
        also={200: "The count, where `dry_run` asked for no more."}, seconds_max=RESEND_SECONDS_MAX,
    ),
    Route(
        method="GET", path="/deliveries/{id}", handler=deliveries.show_delivery,
        role=Role.VIEWER, answer=delivery.DeliveryWithAttempts, problems=(404,),
    ),
    Route(
        method="POST", path="/deliveries/{id}/resend", handler=deliveries.resend_delivery,
        role=Role.OPERATOR, answer=delivery.Delivery, status=202, problems=(404, 409),
    ),
    Route(
        method="POST", path="/deliveries/{id}/cancel", handler=deliveries.cancel_delivery,
        role=Role.OPERATOR, answer=delivery.DeliveryWithAttempts, problems=(404, 409),
    ),
    Route(
        method="GET", path="/tokens", handler=access.list_tokens,
        role=Role.ADMIN, answer=token.TokenPage, problems=(404,),
    ),
    Route(
        method="POST", path="/tokens", handler=access.create_token,
        role=Role.ADMIN, answer=token.CreatedToken, status=201, problems=(404, 409),
    ),
    Route(
        method="DELETE", path="/tokens/{id}", handler=access.revoke_token,
        role=Role.ADMIN, answer=None, status=204, problems=(404,),
    ),
    Route(
        method="GET", path="/audit", handler=access.list_audit,
        role=Role.ADMIN, answer=audit.AuditPage, problems=(404,),
    ),
)  # fmt: skip
