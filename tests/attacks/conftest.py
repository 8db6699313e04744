"""The attack matrix: what its tests ask for."""

from tests.stage.conftest import policy, sender
from tests.support.bench import bench, say, sql

__all__ = ["bench", "policy", "say", "sender", "sql"]
