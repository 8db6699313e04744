"""The fault matrix: what its tests ask for."""

from tests.support.bench import bench, make_bench, say, sql

__all__ = ["bench", "make_bench", "say", "sql"]
