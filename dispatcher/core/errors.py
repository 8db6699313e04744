"""Every error that crosses a module, one base, one line each; stage borders decide what it costs."""


class DispatcherError(Exception):
    """Base of all errors of ours; its text is fit for an operator to read."""


class ConfigurationError(DispatcherError):
    """The configuration is wrong; `problems` lists every fault at once, each with its key path."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class SchemaError(DispatcherError):
    """The database's schema is absent, too old or too new for this version; the message names the case."""


class ProfileError(DispatcherError):
    """A profile file or a value under it (a secret, a header) breaks the profile's rules."""


class EncodingError(DispatcherError):
    """An event cannot be put into its profile's envelope; that delivery alone is cancelled."""


class SecretError(DispatcherError):
    """A secret cannot be decrypted or does not have the form that its profile asks for."""


class BlockedAddressError(DispatcherError, OSError):
    """The address policy denies a URL or an address; `rule` names the range. An OSError for aiohttp."""

    def __init__(self, address: str, rule: str) -> None:
        self.address = address
        self.rule = rule
        super().__init__(f"{address} is denied by the address policy ({rule})")


class StoreUnavailableError(DispatcherError):
    """Postgres cannot be written to just now: away, frozen, read-only or restarting. Retry later."""


class DataFaultError(StoreUnavailableError):
    """Postgres or its driver refuses the contents of a row; the same statement fails until the row is fixed."""


class BatchRefusedError(DispatcherError):
    """Postgres refuses a batch of events for what they hold; a smaller batch may pass."""


class NotFoundError(DispatcherError):
    """No such endpoint, event or delivery."""


class ConflictError(DispatcherError):
    """The request contradicts the present state; the message names the conflict."""


class ForbiddenError(DispatcherError):
    """The caller's role is not sufficient; the message names the role that is."""


class PreconditionFailedError(DispatcherError):
    """The thing has changed since the version that the request names; read it again."""


class TooManyError(DispatcherError):
    """A bound on what may go on at once, or in a time, is reached; later is fine."""

    def __init__(self, text: str, retry_after_seconds: float = 1.0) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(text)


class InvalidRequestError(DispatcherError):
    """Input breaks rules; `problems` lists every fault as (field, message)."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        self.problems = problems
        super().__init__("; ".join(f"{field}: {message}" for field, message in problems))
