"""The settings: all sections with their rules, and the values that come from the environment alone.

`settings_reader.py` reads them. A settings object never changes, and no secret is in its `repr`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, SecretBytes, SecretStr, model_validator

from dispatcher.config.database_url import UrlSource
from dispatcher.config.sections import (
    AttemptsSettings,
    DatabaseSettings,
    DeliverySettings,
    DisablingSettings,
    EgressSettings,
    EndpointsSettings,
    FanoutSettings,
    HealthSettings,
    HttpSettings,
    IntakeSettings,
    LimitsSettings,
    LogSettings,
    MetricsSettings,
    NotificationsSettings,
    OidcSettings,
    PortalSettings,
    RecorderSettings,
    ReplicaSettings,
    RetentionSettings,
    SearchSettings,
    Section,
    SmtpSettings,
    TracingSettings,
)
from dispatcher.config.shipped import shipped_config_directory

PREFIX: Final = "DISPATCHER_"
SPECIALS: Final = (
    "DISPATCHER_DATABASE_URL",
    "DISPATCHER_LISTEN_DATABASE_URL",
    "DISPATCHER_ADMIN_TOKEN",
    "DISPATCHER_SECRET_KEYS",
    "DISPATCHER_SMTP_PASSWORD",
    "DISPATCHER_OIDC_CLIENT_SECRET",
)


class SecretKey(NamedTuple):
    """A key that secrets at rest are encrypted with; `id` is stored next to the ciphertext."""

    id: str
    key: SecretBytes
    """32 bytes."""


class Sections(BaseModel):
    """What the file may hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    database: DatabaseSettings = DatabaseSettings()
    intake: IntakeSettings = IntakeSettings()
    fanout: FanoutSettings = FanoutSettings()
    delivery: DeliverySettings = DeliverySettings()
    attempts: AttemptsSettings = AttemptsSettings()
    disabling: DisablingSettings = DisablingSettings()
    health: HealthSettings = HealthSettings()
    endpoints: EndpointsSettings = EndpointsSettings()
    limits: LimitsSettings = LimitsSettings()
    search: SearchSettings = SearchSettings()
    egress: EgressSettings = EgressSettings()
    recorder: RecorderSettings = RecorderSettings()
    replica: ReplicaSettings = ReplicaSettings()
    retention: RetentionSettings = RetentionSettings()
    http: HttpSettings = HttpSettings()
    smtp: SmtpSettings = SmtpSettings()
    notifications: NotificationsSettings = NotificationsSettings()
    portal: PortalSettings = PortalSettings()
    oidc: OidcSettings = OidcSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    tracing: TracingSettings = TracingSettings()

    @model_validator(mode="after")
    def _provider_can_send_people_back(self) -> Self:
        if self.oidc.issuer and not self.http.public_url:
            raise ValueError(
                "http.public_url is required with oidc.issuer: the provider sends people back to it"
            )
        return self


class Settings(Sections):
    """Everything that a person can decide; `Settings()` is the defaults."""

    database_url: SecretStr | None = None
    listen_database_url: SecretStr | None = None
    """For LISTEN, behind a transaction pooler; None: the same as `database_url`."""
    database_url_file: Path | None = None
    """The file of `database_url`, which is read again for each new connection."""
    listen_database_url_file: Path | None = None
    admin_token: SecretStr | None = None
    smtp_password: SecretStr | None = None
    oidc_client_secret: SecretStr | None = None
    secret_keys: tuple[SecretKey, ...] = ()
    """The first one encrypts, all decrypt."""
    config_path: Path | None = None
    sources: Mapping[str, str] = {}
    """Where each value that is not a default came from, by key path or variable."""
    warnings: tuple[str, ...] = ()
    """What is odd but no fault, to be logged once at start."""

    def database_source(self) -> UrlSource | None:
        """Return where connections find the database; None if no URL is set."""
        if self.database_url is None:
            return None
        return UrlSource(self.database_url.get_secret_value(), self.database_url_file)

    def listen_source(self) -> UrlSource | None:
        """Return where the LISTEN connection finds the database, the same one unless a URL of its own is set."""
        if self.listen_database_url is None:
            return self.database_source()
        return UrlSource(self.listen_database_url.get_secret_value(), self.listen_database_url_file)

    @property
    def listens(self) -> bool:
        """Whether LISTEN is used; through a pooler, it and its lock would stay behind on a shared connection."""
        pooled = self.database.pooler and self.listen_database_url is None
        return self.intake.notify and not pooled

    def database_addresses(self) -> list[tuple[str, int]]:
        """Return every (host or address, port) of the database URLs, for the egress guard to protect."""
        sources = [self.database_source(), self.listen_source()]
        places = [place for source in sources if source for place in source.first.addresses()]
        return list(dict.fromkeys(places))

    def console_url(self, port: int | None = None) -> str:
        """Return the address of the console for people, with a final slash; `port` is the one in use."""
        if self.http.public_url:
            return self.http.public_url.rstrip("/") + "/"
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.http.host, self.http.host)  # noqa: S104 -- compared
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host
        return f"http://{host}:{self.http.port if port is None else port}/"

    def directories_for(self, name: str) -> list[Path]:
        """Return the folders for `profiles` or `catalogue`: the shipped one, then ours to add."""
        directories = [shipped_config_directory() / name]
        if self.config_path is not None:
            beside = self.config_path.parent / name
            if beside.is_dir() and beside.resolve() != directories[0].resolve():
                directories.append(beside)
        return directories

    def source_of(self, key_path: str) -> str:
        """Return where the value came from: `default`, a file, a variable or a flag."""
        return self.sources.get(key_path, "default")


SECTION_TYPES: Final[Mapping[str, type[Section]]] = {
    name: field.annotation
    for name, field in Sections.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}
