"""T3: seeds of schedules with crashes at every await; lost = ghost = 0, each planted bug is found, any seed replays.

The seeds are played in a process of their own with fixed hashing: `python -m tests.simulation --help`.
"""

import os
import subprocess
import sys

import orjson
import pytest

from tests.simulation.planted import BUGS
from tests.support.daemon import CHECKOUT

SEEDS_SHORT = 100
SEEDS_LONG = 10_000
SEEDS_TO_FIND_A_BUG = 1_000
SHORT_BEGINS_AT = {
    "no-fence": 110,
    "results-dropped-in-an-outage": 90,
    "copy-of-fan-out-unguarded": 575,
    "place-without-the-outbox": 220,
}
"""Found after hundreds of seeds, some seconds: the short form begins later. The long one plays them all."""


def _run(*arguments: str, seconds: float) -> tuple[int, list[dict[str, object]]]:
    finished = subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=CHECKOUT,
        env={"PATH": os.environ["PATH"], "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    lines = [orjson.loads(line) for line in finished.stdout.splitlines() if line.startswith("{")]
    assert lines, finished.stderr[-3_000:]
    return finished.returncode, lines


@pytest.mark.slow
@pytest.mark.timeout(3_000)
def test_no_schedule_loses_or_forges_or_repeats_anything(long_run, say):
    seeds = SEEDS_LONG if long_run else SEEDS_SHORT
    code, lines = _run("--seeds", str(seeds), seconds=2_900)
    say(orjson.dumps(lines[-1]).decode())
    assert code == 0, lines
    assert lines[-1]["seeds"] == seeds


@pytest.mark.timeout(600)
@pytest.mark.parametrize("bug", sorted(BUGS))
def test_a_planted_bug_is_found_within_a_thousand_seeds(bug, say, long_run):
    first = 0 if long_run else SHORT_BEGINS_AT.get(bug, 0)
    seeds = ("--first", str(first), "--seeds", str(SEEDS_TO_FIND_A_BUG))
    code, lines = _run("--planted", bug, *seeds, "--until-failed", seconds=590)
    say(orjson.dumps(lines[-1]).decode())
    assert code == 1, f"{bug} was not found in {SEEDS_TO_FIND_A_BUG} seeds"


def test_a_seed_is_the_same_schedule_in_every_process():
    first, second = (_run("--seeds", "8", seconds=60)[1][-1] for _ in range(2))
    assert first["digest"] == second["digest"]
    assert first["digest"] != _run("--seeds", "8", "--first", "8", seconds=60)[1][-1]["digest"]


def test_a_claim_that_hangs_before_it_is_placed_is_not_passed():
    """Seed 5680: the response of `place` was lost, and a later event of the line was sent before the claim's."""
    code, lines = _run("--seed", "5680", seconds=60)
    assert code == 0, lines


def test_a_delivery_that_another_replica_wrote_in_between_is_not_passed():
    """Seed 7677: its announcement was lost with the connection, and the line went on behind it in memory."""
    code, lines = _run("--seed", "7677", seconds=60)
    assert code == 0, lines


def test_a_delivery_left_to_postgres_is_not_passed_by_a_later_one():
    """Seed 9344: its position was lower than that of the one in flight, and a later event was put behind that one."""
    code, lines = _run("--seed", "9344", seconds=60)
    assert code == 0, lines


@pytest.mark.parametrize("seed", ["1947", "6098"])
def test_an_event_that_a_replica_claims_as_it_joins_is_not_passed(seed: str):
    """Its lease was not seen yet, so a later event of the line was put behind those in memory, and sent first."""
    code, lines = _run("--seed", seed, seconds=60)
    assert code == 0, lines
