"""Every route of the API on a distributed history: the tests of the matrix, with another database."""

import pytest

from tests.admin.conftest import api, connection, deployment
from tests.admin.test_matrix import (
    routes,
    test_a_smaller_role_is_refused_and_changes_nothing,
    test_the_role_that_a_route_needs_is_enough,
    test_what_is_anothers_does_not_exist,
)

pytestmark = pytest.mark.postgres

__all__ = [
    "api",
    "connection",
    "deployment",
    "routes",
    "test_a_smaller_role_is_refused_and_changes_nothing",
    "test_the_role_that_a_route_needs_is_enough",
    "test_what_is_anothers_does_not_exist",
]
