"""The census of a backlog: turns between tenants, and what it may not lose or keep."""

import pytest

from dispatcher.core.census import (
    LEFT_MAX,
    POSITIONS_PER_TENANT_MAX,
    RESTART_SECONDS_MIN,
    TRAIL_SECONDS,
    Census,
)


@pytest.fixture
def census() -> Census:
    """A census after the oldest claim of tenant `a`, at time 100."""
    made = Census()
    made.claimed("a", 0)
    made.scan_from(100.0)
    return made


def test_pick_takes_one_event_of_each_tenant_a_turn(census: Census) -> None:
    census.scanned({"a": [1, 2, 3], "b": [4, 5, 6], "c": [7]}, 7, 0.001)
    pick = census.pick(3)
    assert list(pick.tenants.items()) == [(4, "b"), (7, "c"), (5, "b")]
    assert pick.per_tenant_max == 2


def test_control_invented_tenants_have_a_turn_each(census: Census) -> None:
    """The census trusts the names that it gets: the statement that scans gives invented ones one name."""
    census.scanned({**{f"invented{n}": [n] for n in range(1, 50)}, "real": [50]}, 50, 0.001)
    assert "real" not in census.pick(10).tenants.values()


def test_pick_of_the_flooding_tenant_alone_is_empty(census: Census) -> None:
    census.scanned({"a": [1, 2, 3]}, 3, 0.001)
    assert census.pick(10) == ({}, 0)


def test_pick_skips_what_the_claim_by_position_has_passed(census: Census) -> None:
    census.scanned({"a": [1], "b": [2, 9]}, 9, 0.001)
    census.claimed("a", 5)
    assert list(census.pick(10).tenants) == [9]


def test_scan_goes_on_where_it_ended(census: Census) -> None:
    census.scanned({"b": [10, 12]}, 12, 0.001)
    assert census.scan_from(100.1) == 12, "all of a backlog is scanned once, not at each round"


def test_scan_covers_late_commits_and_adds_none_twice(census: Census) -> None:
    census.scanned({"b": [10]}, 10, 0.001)
    census.scan_from(100.1 + TRAIL_SECONDS)
    census.scanned({"b": [20, 22]}, 22, 0.001)
    assert census.scan_from(100.2 + 2 * TRAIL_SECONDS) == 10
    census.scanned({"b": [20, 21, 22]}, 22, 0.001)
    assert sorted(census.pick(10).tenants) == [10, 20, 21, 22]


def test_restart_finds_everything_again(census: Census) -> None:
    census.scanned({"b": [10]}, 10, 0.001)
    census.pick(1)
    now = 100.0
    while now < 100.0 + RESTART_SECONDS_MIN:
        assert census.scan_from(now) == 10
        now += 0.9
    assert census.scan_from(now) == 0


def test_left_out_are_the_flooding_tenant_and_full_ones(census: Census) -> None:
    assert census.left_out() == ["a"]
    census.scanned({"b": range(1, POSITIONS_PER_TENANT_MAX + 1), "c": [8]}, 1, 0.001)
    assert census.left_out() == ["a", "b"]


def test_restart_follows_a_change_of_the_flooding_tenant(census: Census) -> None:
    census.scanned({"b": [10]}, 10, 0.001)
    census.claimed("b", 5)
    assert census.scan_from(100.2) == 10, "a scan of everything has its price"
    assert census.scan_from(100.3) == 5
    assert census.left_out() == ["b"]


def test_put_back_events_are_the_next_of_their_tenants(census: Census) -> None:
    census.scanned({"b": [4, 5, 6]}, 6, 0.001)
    pick = census.pick(2)
    census.put_back(pick.tenants)
    assert list(census.pick(3).tenants) == [4, 5, 6]


def test_a_refused_event_is_left_to_the_claim_by_position(census: Census) -> None:
    census.leave(4)
    census.forget()
    census.scan_from(200.0)
    census.scanned({"b": [4, 5]}, 5, 0.001)
    assert list(census.pick(10).tenants) == [5]
    for position in range(LEFT_MAX + 10):
        census.leave(position)
