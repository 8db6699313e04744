"""Descriptors are shared out so that requests fit, and the listener and the database always have theirs."""

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.outbound.descriptor_limits import share_out


@given(
    st.integers(48, 2**31),
    st.integers(1, 10_000),
    st.integers(1, 100),
    st.integers(16, 100_000),
)
def test_share_out_keeps_some_sends_some_and_warns_if_not_all_fits(limit, total, pool, listener):
    shared = share_out(
        limit, concurrency_total=total, pool_size=pool, listener_connections=listener
    )
    assert limit - shared.first_kept >= 12
    assert 1 <= shared.sockets_max <= min(total, shared.connections_max)
    assert (shared.warning is None) == (limit >= shared.needed)
    if shared.warning is None:
        assert shared.sockets_max == total
        assert limit - shared.first_kept >= pool + listener


def test_the_warning_names_the_limit_what_fits_and_what_would_do():
    shared = share_out(256, concurrency_total=500, pool_size=10, listener_connections=256)
    assert shared.first_kept == 192
    assert shared.sockets_max == 158
    assert shared.warning is not None
    assert "is 256: 158 requests fit" in shared.warning
    assert f"raise it to {shared.needed}" in shared.warning


def test_the_shipped_settings_fit_under_a_limit_of_1024():
    shared = share_out(1_024, concurrency_total=500, pool_size=10, listener_connections=256)
    assert shared.warning is None


def test_share_out_idle_connections_may_exceed_attempts_in_flight():
    shared = share_out(65_536, concurrency_total=500, pool_size=10, listener_connections=256)
    assert shared.sockets_max == 500
    assert shared.connections_max > 60_000
