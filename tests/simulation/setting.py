"""What every simulated replica shares: settings, profiles, keys, and the stores put in Postgres' place."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from dispatcher.config.profiles import load_profiles
from dispatcher.config.settings_reader import load_settings
from dispatcher.core.sealing import Keyring
from dispatcher.delivery import pipeline
from dispatcher.telemetry.metrics import Metrics

EPOCH: Final = datetime(2026, 11, 24, 12, 0, tzinfo=UTC).timestamp()
KEYRING: Final = Keyring({"k1": b"k" * 32})
SETTINGS: Final = load_settings(
    None,
    {},
    flags={
        "delivery.wheel_horizon_seconds": 8.0,  # so that most schedules reach beyond it
        "delivery.concurrency_per_host": 4,
        "delivery.concurrency_total": 6,
        "egress.allow_http": True,
        "recorder.batch_rows": 4,
        "recorder.unrecorded_max": 8,  # so that a full recorder is an ordinary thing
        "intake.batch_events": 5,
    },
)
PROFILES: Final = load_profiles(SETTINGS.directories_for("profiles")).profiles
METRICS: Final = Metrics(version="simulated", profiles=PROFILES)


@contextmanager
def simulated_stores(**replacements: Any) -> Iterator[None]:
    """Gives the pipeline these classes in place of the store's."""
    before = {name: getattr(pipeline, name) for name in replacements}
    for name, replacement in replacements.items():
        setattr(pipeline, name, replacement)
    try:
        yield
    finally:
        for name, original in before.items():
            setattr(pipeline, name, original)
