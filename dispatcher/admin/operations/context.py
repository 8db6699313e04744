"""What every operation needs: who asks, what they may, and what this deployment is like.

A viewer reads: endpoints with their secrets and header values masked, events, deliveries and
attempts without what receivers answered. An operator also acts on deliveries (test, resend, cancel,
pause, resume, publish) and sees the responses. A manager also changes endpoints within limits and
their secrets; only portal links grant this role. An admin changes everything of endpoints, also
changes tokens and notifications, and reads the audit log.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Self

from dispatcher.admin.operations.text_search import SearchQueue
from dispatcher.admin.rate_limits import SendLimits
from dispatcher.config.catalogue import Catalogue
from dispatcher.config.loading import Configuration as FileConfiguration
from dispatcher.config.settings import Settings
from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.errors import ConfigurationError, ForbiddenError, NotFoundError
from dispatcher.core.problems import problem
from dispatcher.core.profile import Profile
from dispatcher.core.sealing import Keyring
from dispatcher.runtime.clock import Clock, SystemClock
from dispatcher.store.encryption_keys import register_keys
from dispatcher.store.pool import Database
from dispatcher.store.routing import EndpointRow
from dispatcher.usability import CompiledRequest, Configuration, find_problem

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

ALL_TENANTS: Final = "*"
"""The tenant of an audited act that is about all of them."""


class Role(StrEnum):
    """The permissions of an actor; each role has those of the one before it."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    MANAGER = "manager"
    ADMIN = "admin"


TOKEN_ROLES: Final = (Role.VIEWER, Role.OPERATOR, Role.ADMIN)
"""The roles that tokens, sign-in links and OpenID rules grant."""
_RANKS: Final = {role: rank for rank, role in enumerate(Role)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who asks: a name for the audit log, the one tenant whose things there are (None: all), a role."""

    name: str
    tenant: str | None = None
    role: Role = Role.ADMIN
    endpoint_id: str | None = None
    """The endpoint whose deliveries it may fetch and settle, and nothing else; None: no such limit."""
    label: str | None = field(default=None, compare=False)
    """The name that pages show; a person's own choice, which identifies no one."""

    def may(self, role: Role) -> bool:
        """Return whether this role or a higher one is held."""
        return _RANKS[self.role] >= _RANKS[role]

    def require(self, role: Role) -> None:
        """Return if this role or a higher one is held.

        Raises:
            ForbiddenError: it is not.
        """
        if not self.may(role):
            # Only portal links grant manager, so everyone else needs admin.
            required = Role.ADMIN if role is Role.MANAGER else role
            raise ForbiddenError(
                problem("role", "role_too_low", required=str(required), role=str(self.role))
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """The database, the rules, and the keys; `keyring` is None where none is configured."""

    database: Database
    settings: Settings
    profiles: Mapping[str, Profile]
    catalogue: Catalogue
    keyring: Keyring | None
    policy: AddressPolicy
    clock: Clock
    send_limits: SendLimits = field(default_factory=SendLimits)
    """What people may set off in how short a time; of this process."""
    searches: SearchQueue = field(default_factory=SearchQueue)

    @classmethod
    def of(
        cls,
        settings: Settings,
        database: Database,
        files: FileConfiguration,
        *,
        policy: AddressPolicy,
        profiles: Mapping[str, Profile] | None = None,
    ) -> Self:
        """Compose a deployment; `profiles` replace those of the files, for a daemon that reloads them."""
        return cls(
            database=database,
            settings=settings,
            profiles=files.profiles.profiles if profiles is None else profiles,
            catalogue=files.catalogue,
            keyring=files.keyring,
            policy=policy,
            clock=SystemClock(),
        )

    def problem_of(self, row: EndpointRow) -> CompiledRequest | None:
        """Return why this configuration does not let an endpoint be sent to; None: it does."""
        configuration = Configuration(
            profiles=self.profiles,
            keyring=self.keyring,
            allow_http=self.settings.egress.allow_http,
            allow_ports=self.policy.allow_ports,
            user_agent=self.settings.egress.user_agent or "dispatcher",
        )
        return find_problem(row, configuration, self.clock.now())

    def keys(self) -> Keyring:
        """Return the keys that encrypt secrets.

        Raises:
            ConfigurationError: there are none.
        """
        if self.keyring is None:
            raise ConfigurationError(
                [
                    'DISPATCHER_SECRET_KEYS: required; `echo "k1:$(openssl rand -base64 32)"` makes one'
                ]
            )
        return self.keyring

    @asynccontextmanager
    async def encrypting(self) -> AsyncIterator["Reach"]:
        """Yield a transaction that may encrypt with `keys()`, which have the values of this database's keys.

        Raises:
            ConfigurationError: there are no keys, or one has another value than in this database.
        """
        keyring = self.keys()
        async with self.database.transaction() as connection:
            await register_keys(connection, keyring)
            yield connection


def allowed_tenant(actor: Actor, wanted: str | None) -> str | None:
    """Return the tenant that a question is about, None for all.

    Raises:
        NotFoundError: it is not the actor's.
    """
    if actor.tenant is not None and wanted not in {None, actor.tenant}:
        raise NotFoundError(problem("tenant", "tenant_not_found", value=wanted))
    return actor.tenant or wanted
