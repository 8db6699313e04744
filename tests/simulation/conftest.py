"""The simulation: what its tests ask for."""

from tests.support.bench import say

__all__ = ["say"]
