"""Every reason, outcome and status has words of its own, so that no page shows a bare code."""

import pytest

from dispatcher.admin.operations.reasons import attempt_advice, reason_advice
from dispatcher.core.model import Outcome, Reason


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_words(reason):
    words = reason_advice(reason)
    assert words.code == reason
    assert words.text != reason


@pytest.mark.parametrize("outcome", [one for one in Outcome if one is not Outcome.HTTP_ERROR])
def test_every_outcome_has_words(outcome):
    words = attempt_advice(outcome, None)
    assert words.code == outcome
    assert words.text != outcome
    assert words.advice or outcome is Outcome.OK


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (301, "redirected"),
        (400, "client_error"),
        (401, "unauthorized"),
        (403, "forbidden"),
        (404, "not_found"),
        (405, "not_found"),
        (413, "too_large"),
        (422, "client_error"),
        (500, "server_error"),
        (599, "server_error"),
    ],
)
def test_a_status_says_what_to_look_at(status, code):
    words = attempt_advice("http_error", status)
    assert words.code == code
    assert str(status) in words.text
    assert words.advice


def test_an_unknown_reason_speaks_for_itself():
    assert reason_advice("from_a_later_version").text == "from_a_later_version"
    assert reason_advice(None).code == "unknown"
