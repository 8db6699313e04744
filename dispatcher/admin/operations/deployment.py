"""What every operation needs: who asks, and what this deployment is like."""

from collections.abc import Mapping
from dataclasses import dataclass

from dispatcher.config.catalogue import Catalogue
from dispatcher.config.settings import Settings
from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.errors import ConfigurationError
from dispatcher.core.profile import Profile
from dispatcher.core.sealing import Keyring
from dispatcher.runtime.clock import Clock
from dispatcher.store.pool import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who asks: a name for the audit log, and the one tenant whose things there are; None: all tenants."""

    name: str
    tenant: str | None = None


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

    def keys(self) -> Keyring:
        """Returns the keys that secrets are sealed with.

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
