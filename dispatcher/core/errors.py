"""Every error that crosses a module, one base, one line each; stage borders decide what it costs."""

from collections.abc import Sequence
from typing import ClassVar

from dispatcher.core.problems import Problem


class DispatcherError(Exception):
    """Base of all errors of the program; its text is fit for an operator to read.

    `reason` is that text, or a problem with a code of its own, which people may read translated.
    """

    kind: ClassVar[str] = "internal"
    """The code of an error that has none of its own."""

    def __init__(self, reason: str | Problem = "") -> None:
        self.problem = reason if isinstance(reason, Problem) else None
        super().__init__(reason.text if isinstance(reason, Problem) else reason)

    @property
    def code(self) -> str:
        """The stable code of the error."""
        return self.kind if self.problem is None else self.problem.code


class ConfigurationError(DispatcherError):
    """The configuration is wrong; `problems` lists every fault at once, each with its key path."""

    kind = "invalid_configuration"

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class SchemaError(DispatcherError):
    """The database's schema is absent, too old or too new for this version; the message names the case."""

    kind = "schema_mismatch"


class ProfileError(DispatcherError):
    """A profile file or a value under it (a secret, a header) breaks the profile's rules."""

    kind = "profile_rule"


class EncodingError(DispatcherError):
    """An event cannot be put into its profile's envelope; that delivery alone is cancelled."""

    kind = "event_not_encodable"


class SecretError(DispatcherError):
    """A secret cannot be decrypted or does not have the form that its profile asks for."""

    kind = "secret_unreadable"


class BlockedAddressError(DispatcherError, OSError):
    """The address policy denies a URL or an address; `rule` names the range. An OSError for aiohttp."""

    kind = "address_denied"

    def __init__(self, address: str, rule: str) -> None:
        self.address = address
        self.rule = rule
        super().__init__(f"{address} is denied by the address policy ({rule})")


class StoreUnavailableError(DispatcherError):
    """Postgres cannot be written to just now: away, frozen, read-only or restarting. Retry later."""

    kind = "database_unavailable"


class NotConnectedError(StoreUnavailableError):
    """There is no connection to Postgres, so the statement was not sent."""


class OutcomeUnknownError(StoreUnavailableError):
    """The connection was lost, or the time was over, while Postgres committed: either outcome is possible."""

    kind = "outcome_unknown"


class OverloadedError(StoreUnavailableError):
    """Too many requests are already waiting for Postgres."""

    kind = "too_many_waiting"


class DataFaultError(StoreUnavailableError):
    """Postgres or its driver refuses the contents of a row; the same statement fails until the row is fixed."""


class BatchRefusedError(DispatcherError):
    """Postgres refuses a batch of events for what they hold; a smaller batch may pass."""


class NotFoundError(DispatcherError):
    """No such endpoint, event or delivery."""

    kind = "not_found"


class ConflictError(DispatcherError):
    """The request conflicts with the current state; the message names the conflict."""

    kind = "conflict"


class ForbiddenError(DispatcherError):
    """The caller's role is not sufficient; the message names the role that is."""

    kind = "forbidden"


class PreconditionFailedError(DispatcherError):
    """The thing has changed since the version that the request names; read it again."""

    kind = "version_changed"


class TooManyError(DispatcherError):
    """A bound on what may go on at once, or in a time, is reached; later is fine."""

    kind = "too_many_requests"

    def __init__(self, reason: str | Problem, retry_after_seconds: float = 1.0) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(reason)


class InvalidRequestError(DispatcherError):
    """Input breaks rules; `problems` lists all of them."""

    kind = "invalid_request"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        super().__init__()

    def __str__(self) -> str:
        """Return all problems; they are written out only where a person reads them."""
        return "; ".join(f"{one.field}: {one.text}" for one in self.problems)
