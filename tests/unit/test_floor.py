"""The outbox's floor: none while looks are cheap, and never for long."""

import pytest

from dispatcher.core.floor import (
    DEAD_ROWS_MIN,
    DEAR_SECONDS,
    TRAIL_SECONDS,
    WHOLE_SECONDS_MAX,
    WHOLE_SECONDS_MIN,
    Floor,
)

DEAR = DEAR_SECONDS * 2
CHEAP = DEAR_SECONDS / 2


@pytest.fixture
def floor() -> Floor:
    """A floor of 100 in use: looks are dear, and so much was claimed a moment ago."""
    made = Floor()
    for now, position in ((0.0, 100), (TRAIL_SECONDS, 200), (2 * TRAIL_SECONDS, 300)):
        made.claimed(now, position)
    for _ in range(2):
        made.polled(1.0, seconds=DEAR, dead_rows=DEAD_ROWS_MIN, found=False)
    return made


def test_while_looks_are_cheap_everything_is_looked_at_each_time():
    floor = Floor()
    for second in range(100):
        floor.claimed(second, 1_000 * second)
        assert floor.for_poll(second) == 0
        assert floor.for_claim() == 0
        # One dear look among cheap ones is the machine's doing.
        floor.polled(
            second, seconds=DEAR if second % 2 else CHEAP, dead_rows=DEAD_ROWS_MIN, found=True
        )


def test_it_trails_what_was_claimed(floor):
    assert floor.for_claim() == 200
    floor.claimed(2 * TRAIL_SECONDS + 0.01, 400)
    assert floor.for_claim() == 200
    floor.claimed(3 * TRAIL_SECONDS, 500)
    assert floor.for_claim() == 300


@pytest.mark.parametrize("seconds", [DEAR, 0.1, 5.0])
def test_everything_is_looked_at_within_seconds_however_dear(floor, seconds):
    floor.polled(10.0, seconds=seconds, dead_rows=DEAD_ROWS_MIN, found=False)
    assert floor.for_poll(10.0 + WHOLE_SECONDS_MIN - 0.1) == 200
    assert floor.for_poll(10.0 + WHOLE_SECONDS_MAX) == 0


def test_what_a_look_at_everything_found_is_claimed_whatever_the_floor(floor):
    floor.polled(10.0, seconds=DEAR, dead_rows=DEAD_ROWS_MIN, found=True)
    assert [floor.for_claim(), floor.for_claim()] == [0, 200]


def test_a_claim_that_failed_forgets_the_floor(floor):
    floor.failed()
    assert floor.for_claim() == 0
    assert floor.for_poll(1.0) == 0


def test_once_looks_are_cheap_again_there_is_none(floor):
    floor.polled(10.0, seconds=CHEAP, dead_rows=DEAD_ROWS_MIN, found=False)
    assert floor.for_claim() == 0
    assert floor.for_poll(10.0) == 0


def test_a_claim_of_older_positions_does_not_lower_it(floor):
    floor.claimed(3 * TRAIL_SECONDS, 50)
    floor.claimed(4 * TRAIL_SECONDS, 60)
    assert floor.for_claim() == 300


def test_a_slow_machine_without_dead_rows_is_no_reason(floor):
    floor.polled(10.0, seconds=5.0, dead_rows=DEAD_ROWS_MIN - 1, found=False)
    assert floor.for_claim() == 0
    assert floor.for_poll(10.0) == 0
