"""Finds the files that come with the package: settings reference, profiles, catalogue and documentation."""

from pathlib import Path

import dispatcher


def shipped_config_directory() -> Path:
    """Return the folder with `dispatcher.toml`, `profiles/` and `catalogue/`.

    In a wheel it is inside the package, in a checkout next to it.
    """
    return _shipped("config")


def shipped_docs_directory() -> Path:
    """Return the folder with the documentation."""
    return _shipped("docs")


def _shipped(name: str) -> Path:
    package = Path(dispatcher.__file__).resolve().parent
    installed = package / f"_shipped_{name}"
    return installed if installed.is_dir() else package.parent / name
