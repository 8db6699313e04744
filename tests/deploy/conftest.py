"""What the tests of the deployment files share."""

from pathlib import Path

import pytest

from tests.support.bench import bench, say, sql

__all__ = ["bench", "say", "sql"]


@pytest.fixture(scope="session")
def deploy(checkout: Path) -> Path:
    """The folder of the deployment files."""
    return checkout / "deploy"
