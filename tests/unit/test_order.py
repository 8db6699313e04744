"""Lines: who is first, who moves up, and what leaves memory together."""

import random
from dataclasses import dataclass

import pytest

from dispatcher.core.order import KEYS_MAX, STRICT_KEY, Lines, Ordering, Place, order_key, place_of


@dataclass(eq=False)
class Work:
    id: str
    place: Place | None = None
    is_in_line: bool = False


def _joined(lines: Lines[Work], *positions: int, key: int = 1) -> list[Work]:
    works = [Work(f"{key}.{position}") for position in positions]
    for work, position in zip(works, positions, strict=True):
        lines.join(work, Place(key, position))
    return works


@pytest.mark.parametrize(
    ("ordering", "key", "position", "place"),
    [
        (Ordering.NONE, "a", 7, None),
        (Ordering.KEY, None, 7, None),
        (Ordering.KEY, "a", None, None),
        (Ordering.KEY, "a", 7, Place(order_key("a"), 7)),
        (Ordering.STRICT, None, 7, Place(STRICT_KEY, 7)),
        (Ordering.STRICT, "a", 7, Place(STRICT_KEY, 7)),
    ],
)
def test_place_of_an_event_follows_the_ordering(ordering, key, position, place):
    assert place_of(ordering, key, position) == place


def test_next_of_a_line_moves_up_when_the_first_has_ended():
    lines: Lines[Work] = Lines()
    first, third, second = _joined(lines, 1, 3, 2)
    assert lines.blocked_count == 2
    assert lines.leave(first, ended=True) == (second, [])
    assert lines.leave(second, ended=True) == (third, [])
    assert lines.leave(third, ended=True) == (None, [])
    assert (lines.count, lines.blocked_count, lines.woken) == (0, 0, {})


def test_next_of_a_line_with_a_possible_gap_is_read_from_postgres():
    """Another replica may have written a delivery between the first two."""
    lines: Lines[Work] = Lines()
    first, second, third = _joined(lines, 1, 2, 3)
    assert lines.leave(first, ended=True, is_gapless=False) == (None, [second, third])
    assert (lines.count, lines.blocked_count, lines.woken) == (0, 0, {1: None})
    assert not second.is_in_line


def test_first_that_leaves_open_takes_the_others_along():
    lines: Lines[Work] = Lines()
    first, second = _joined(lines, 1, 2)
    assert lines.leave(first, ended=False) == (None, [second])
    assert (lines.count, lines.blocked_count, second.is_in_line) == (0, 0, False)
    assert not lines.woken  # the first is due in Postgres, and its place is read with it


def test_one_behind_that_leaves_open_is_found_again():
    lines: Lines[Work] = Lines()
    first, second = _joined(lines, 1, 2)
    assert lines.leave(second, ended=False) == (None, [])
    assert lines.leave(first, ended=True) == (None, [])
    assert lines.woken == {1: None}


def test_line_that_has_more_is_woken_at_its_end():
    lines: Lines[Work] = Lines()
    (first,) = _joined(lines, 1)
    lines.expect_more(1)
    lines.expect_more(2)
    assert lines.woken == {2: None}
    lines.leave(first, ended=True)
    assert lines.woken == {2: None, 1: None}


def test_gap_in_front_of_a_place_is_noticed():
    lines: Lines[Work] = Lines()
    _joined(lines, 1, 5)
    assert lines.has_before(Place(1, 6), "1.5")
    assert lines.has_before(Place(1, 4), "1.1")
    assert not lines.has_before(Place(1, 6), "1.3")
    assert not lines.has_before(Place(2, 6), "1.5")


def test_kept_first_ones_expect_more_behind_them():
    lines: Lines[Work] = Lines()
    first, second = _joined(lines, 1, 2)
    (other,) = _joined(lines, 1, key=2)
    lines.keep({first.id})
    assert (lines.count, lines.blocked_count) == (1, 0)
    assert (first.is_in_line, second.is_in_line, other.is_in_line) == (True, False, False)
    lines.leave(first, ended=True)
    assert lines.woken == {1: None}


def test_more_woken_lines_than_fit_are_left_to_a_sweep():
    lines: Lines[Work] = Lines()
    lines.sweep_after = None
    for key in range(KEYS_MAX + 1):
        lines.wake(key)
        lines.hold(key)
    assert (len(lines.woken), len(lines.held)) == (KEYS_MAX, KEYS_MAX)
    assert lines.sweep_after is not None


@pytest.mark.parametrize("seed", range(20))
def test_any_interleaving_sends_a_line_in_order(seed):
    """Deliveries join in order, some leave memory and come back, as from Postgres; each line ends in order."""
    chance = random.Random(seed)  # noqa: S311 -- a schedule, no secret
    lines: Lines[Work] = Lines()
    waiting = {key: list(range(1, 12)) for key in range(3)}
    memory: dict[int, list[Work]] = {key: [] for key in waiting}
    ended: dict[int, list[int]] = {key: [] for key in waiting}
    while any(waiting.values()) or any(memory.values()):
        key = chance.choice([k for k in waiting if waiting[k] or memory[k]])
        if waiting[key] and chance.random() < 0.6:
            work = Work(f"{key}.{waiting[key][0]}")
            assert lines.join(work, Place(key, waiting[key].pop(0))) is not bool(memory[key])
            memory[key].append(work)
        elif memory[key]:
            is_end = chance.random() < 0.7
            first = memory[key].pop(0)
            assert first.place is not None
            following, left = lines.leave(first, ended=is_end)
            if is_end:
                ended[key].append(first.place.position)
                assert following is (memory[key][0] if memory[key] else None)
            else:
                assert left == memory[key]
                back = [first, *left]
                waiting[key] = [one.place.position for one in back if one.place] + waiting[key]
                memory[key] = []
    assert all(found == list(range(1, 12)) for found in ended.values())
    assert (lines.count, lines.blocked_count) == (0, 0)


def test_place_left_to_postgres_takes_those_behind_it_along():
    lines: Lines[Work] = Lines()
    first, second, fifth = _joined(lines, 1, 2, 5)
    assert lines.cut(Place(1, 3)) == [fifth]
    assert (lines.blocked_count, fifth.is_in_line) == (1, False)
    lines.leave(first, ended=True)
    lines.leave(second, ended=True)
    assert lines.woken == {1: None}


def test_first_with_a_higher_position_is_still_before():
    """It was sent before the others were committed: their transactions overlapped."""
    lines: Lines[Work] = Lines()
    _joined(lines, 2, 1)
    assert lines.has_before(Place(1, 3), "1.2")


def test_no_delivery_passes_one_left_to_postgres_below_the_first():
    """The first was sent before the other one was committed, so the last in memory is the one immediately before."""
    lines: Lines[Work] = Lines()
    _joined(lines, 11, 1)
    lines.cut(Place(1, 4))
    assert not lines.has_before(Place(1, 13), "1.11")


def test_no_delivery_passes_one_that_is_not_placed_yet():
    """Its claim was committed after those in memory were placed, and Postgres has not said where it stands."""
    lines: Lines[Work] = Lines()
    _joined(lines, 8, 10)
    lines.announce(Place(1, 9))
    assert not lines.has_before(Place(1, 11), "1.10")
    assert lines.has_before(Place(1, 9), "1.8")
    lines.settle(Place(1, 9))
    assert lines.has_before(Place(1, 11), "1.10")
    lines.settle(Place(1, 9))  # it may be settled twice, or in a lane that was opened again
