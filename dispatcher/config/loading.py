"""Everything that the settings refer to, loaded once for the daemon and for a command."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from dispatcher.config.catalogue import Catalogue, load_catalogue
from dispatcher.config.profiles import LoadedProfiles, load_profiles
from dispatcher.config.settings import Settings
from dispatcher.core.errors import ConfigurationError
from dispatcher.core.sealing import Keyring

_Loaded = TypeVar("_Loaded")


class Configuration(NamedTuple):
    """The profiles, the catalogue and the keys; `keyring` is None if no keys are set."""

    profiles: LoadedProfiles
    catalogue: Catalogue
    keyring: Keyring | None


def load_configuration(settings: Settings, *, needs_keys: bool = False) -> Configuration:
    """Return the configuration; a daemon needs keys, commands without secrets do not.

    Raises:
        ConfigurationError: files or keys are invalid; has all problems.
    """
    problems: list[str] = []

    def load(read: Callable[[], _Loaded]) -> _Loaded | None:
        try:
            return read()
        except ConfigurationError as error:
            problems.extend(error.problems)
            return None

    keyring = load(lambda: keyring_of(settings)) if settings.secret_keys or needs_keys else None
    profiles = load(lambda: load_profiles(settings.directories_for("profiles")))
    catalogue = load(lambda: load_catalogue(settings.directories_for("catalogue")))
    default = settings.endpoints.default_profile
    if profiles is not None and default not in profiles.profiles:
        problems.append(
            f"endpoints.default_profile: there is no profile {default!r}."
            f" Use one of {', '.join(sorted(profiles.profiles))}."
        )
    if problems or profiles is None or catalogue is None:
        raise ConfigurationError(problems)
    return Configuration(profiles, catalogue, keyring)


def keyring_of(settings: Settings) -> Keyring:
    """Return the keys that encrypt stored secrets.

    Raises:
        ConfigurationError: there are none.
    """
    if not settings.secret_keys:
        raise ConfigurationError(
            ['DISPATCHER_SECRET_KEYS: required; `echo "k1:$(openssl rand -base64 32)"` makes one']
        )
    return Keyring({key.id: key.key.get_secret_value() for key in settings.secret_keys})
