"""The attack matrix: what its tests ask for."""

from tests.support.bench import bench, say, sql

__all__ = ["bench", "say", "sql"]
