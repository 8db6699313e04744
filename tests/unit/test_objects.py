"""Objects that operations answer: what a kept answer reads like."""

from dispatcher.admin.operations.objects import body_text


def test_a_character_that_the_limit_cut_in_two_is_left_out():
    kept = ("ก" * 2_000).encode()[:4096]
    assert body_text(kept) == "ก" * 1_365
    assert len(body_text(kept).encode()) <= 4096


def test_bytes_that_are_no_text_are_replaced():
    assert body_text(b"a\xff\xe0\xb8") == "a\ufffd\ufffd"
