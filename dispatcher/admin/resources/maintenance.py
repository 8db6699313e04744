"""What retention and re-encryption did, as their commands report it."""

from dispatcher.admin.resources.base import Response, resource
from dispatcher.admin.resources.fields import EndpointId


@resource
class RetentionStep(Response):
    """A day of a table that is past its retention; `result` is null in a dry run."""

    table: str
    day: str
    action: str
    bytes: int
    rows: int
    unfinished: int
    result: str | None


@resource
class RetentionRun(Response):
    """What retention dropped, or would drop (`dry_run`)."""

    dry_run: bool
    items: list[RetentionStep]
    audit_lines: int
    bytes: int
    kept_for_unfinished: int


@resource
class RekeyRun(Response):
    """The secrets that were encrypted again; no configured key decrypts those of the `unreadable` endpoints."""

    key_id: str
    secrets: int
    resealed: int
    unreadable: list[EndpointId]
