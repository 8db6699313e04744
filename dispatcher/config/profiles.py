"""Loads profiles: the shipped ones, then those next to the deployment's configuration."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

from dispatcher.core.errors import ConfigurationError
from dispatcher.core.profile import Profile
from dispatcher.core.profile_parser import parse


class LoadedProfiles(NamedTuple):
    """The profiles by name, and the names that a later directory took from an earlier one."""

    profiles: dict[str, Profile]
    replaced: list[str]


def load_profiles(directories: Sequence[Path]) -> LoadedProfiles:
    """Return the profiles of all `*.toml` in `directories`; a later one replaces one of its name.

    A file is named for its profile. A directory that is not there counts as empty.

    Raises:
        ConfigurationError: with every fault of every file, each with its file and key path.
    """
    problems: list[str] = []
    profiles: dict[str, Profile] = {}
    replaced: list[str] = []
    for directory in directories:
        for file in sorted(directory.glob("*.toml")):
            try:
                profile = parse(tomllib.loads(file.read_text(encoding="utf-8-sig")), ZoneInfo)
            except ConfigurationError as error:
                problems.extend(f"{file}: {problem}" for problem in error.problems)
                continue
            except (OSError, ValueError) as error:
                # tomllib's own error and a wrong encoding are both ValueErrors.
                problems.append(f"{file}: {error}")
                continue
            if profile.name != file.stem:
                problems.append(f"{file}: name: {profile.name!r} is not the file's name")
            if profile.name in profiles:
                replaced.append(profile.name)
            profiles[profile.name] = profile
    if problems:
        raise ConfigurationError(problems)
    return LoadedProfiles(profiles, replaced)
