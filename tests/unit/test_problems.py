"""Problem documents: what a client compares is the same on every supported Python."""

import orjson
import pytest

from dispatcher.admin.api.problems import problem

RFC_9110 = {
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    409: "Conflict",
    412: "Precondition Failed",
    413: "Content Too Large",  # Python 3.11 and 3.12: Request Entity Too Large
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",  # Python 3.11 and 3.12: Unprocessable Entity
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


@pytest.mark.parametrize(("status", "title"), RFC_9110.items())
def test_problem_title_is_the_standards_on_every_python(status: int, title: str):
    response = problem(status, "a detail")
    assert isinstance(response.body, bytes)
    assert orjson.loads(response.body)["title"] == title
    assert response.reason == title
