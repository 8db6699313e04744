"""Reloading the settings while the daemon runs."""

from dispatcher.config.settings import Settings

_TAKES_EFFECT_AT_ONCE = ("delivery.drain_seconds", "delivery.concurrency_per_endpoint")


def differences(old: Settings, new: Settings) -> tuple[list[str], list[str]]:
    """Return the changed key paths, and those of them that need a restart to take effect."""
    before, after = old.model_dump(), new.model_dump()
    changed = [
        f"{section}.{key}"
        for section, values in after.items()
        if isinstance(values, dict) and section != "sources"
        for key, value in values.items()
        if before.get(section, {}).get(key) != value
    ]
    return changed, [key for key in changed if key not in _TAKES_EFFECT_AT_ONCE]
