"""Finds the files that come with the package: settings reference, profiles and catalogue."""

from pathlib import Path

import dispatcher


def shipped_config_directory() -> Path:
    """Return the folder with `dispatcher.toml`, `profiles/` and `catalogue/`.

    In a wheel it is inside the package, in a checkout next to it.
    """
    package = Path(dispatcher.__file__).resolve().parent
    installed = package / "_shipped_config"
    return installed if installed.is_dir() else package.parent / "config"
