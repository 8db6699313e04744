"""The codes of words: one for each word of the domain, and none that a row could not hold."""

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core import codes
from dispatcher.core.model import DeliveryState, Outcome, Reason, Trigger


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (codes.STATES, DeliveryState),
        (codes.TRIGGERS, Trigger),
        (codes.OUTCOMES, Outcome),
        (codes.REASONS, Reason),
    ],
)
def test_codes_every_word_of_the_domain_has_one(words, kind):
    assert sorted(words) == sorted(kind)
    assert len(set(words)) == len(words)


def test_codes_words_are_read_back():
    assert [codes.state_of(code) for code in codes.STATE_CODES.values()] == list(codes.STATES)
    assert [codes.reason_of(code) for code in codes.REASON_CODES.values()] == list(codes.REASONS)
    assert [codes.outcome_of(code) for code in codes.OUTCOME_CODES.values()] == list(codes.OUTCOMES)
    assert [codes.trigger_of(code) for code in codes.TRIGGER_CODES.values()] == list(codes.TRIGGERS)
    assert codes.reason_of(codes.reason_code(None)) is None
    assert codes.OK == 1
    assert codes.SUCCEEDED == 3, "the partial indexes and CHECKs of the schema name these two"


@given(st.text(max_size=128))
def test_event_type_code_fits_an_integer_column(event_type):
    code = codes.event_type_code(event_type)
    assert -(2**31) <= code < 2**31
    assert code % 2**32 == crc32(event_type.encode())
