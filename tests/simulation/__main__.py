"""Plays seeds: `python -m tests.simulation --seeds 1000`, or one of them again: `--seed 17 --trace`.

The order of a set of texts depends on the process unless hashing is fixed, and a seed must replay in any
process: so this starts itself anew with PYTHONHASHSEED=0. One JSON line sums a run up; each seed that
failed has one of its own, with the command that plays it again.
"""

import argparse
import asyncio
import gc
import os
import sys
import time
import warnings

import orjson
import structlog

from tests.simulation.planted import BUGS, planted
from tests.simulation.schedule import Verdict, play

FAILURES_SHOWN = 5


def _quiet() -> None:
    """A killed process' coroutines are torn down much later, by the collector: what they say is noise."""

    def drop(*_: object) -> str:
        raise structlog.DropEvent

    structlog.configure(processors=[drop], cache_logger_on_first_use=False)
    sys.unraisablehook = lambda _: None
    warnings.simplefilter("ignore", RuntimeWarning)


def _say(**fields: object) -> None:
    sys.stdout.write(orjson.dumps(fields).decode() + "\n")
    sys.stdout.flush()


def _fail(verdict: Verdict, planted_name: str | None) -> None:
    again = f"python -m tests.simulation --seed {verdict.seed} --trace"
    _say(
        failed=verdict.seed,
        violations=verdict.violations[:3],
        again=again + (f" --planted {planted_name}" if planted_name else ""),
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seed", type=int, help="play this one seed")
    parser.add_argument("--trace", action="store_true", help="print what happened")
    parser.add_argument("--seeds", type=int, default=200, help="how many to play")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--planted", choices=sorted(BUGS), help="with this bug in the pipeline")
    parser.add_argument("--until-failed", action="store_true", help="end at the first that fails")
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(  # noqa: S606 -- this very program
            sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        )
    _quiet()
    with planted(options.planted):
        if options.seed is not None:
            verdict = play(options.seed, with_trace=options.trace)
            sys.stdout.write("\n".join([*verdict.trace, ""]))
            _say(seed=verdict.seed, digest=verdict.digest, violations=verdict.violations)
            return 1 if verdict.violations else 0
        return _play_many(options)


def _play_many(options: argparse.Namespace) -> int:
    began = time.monotonic()
    failed: list[int] = []
    totals = {"pairs": 0, "requests": 0, "deaths": 0, "lost_claims": 0}
    virtual_seconds = 0.0
    played = digest = 0
    gc.disable()
    for seed in range(options.first, options.first + options.seeds):
        verdict = play(seed)
        played += 1
        digest = (digest * 31 + verdict.digest) & 0xFFFFFFFF
        virtual_seconds += verdict.virtual_seconds
        for name in totals:
            totals[name] += getattr(verdict, name)
        if verdict.violations:
            failed.append(seed)
            if len(failed) <= FAILURES_SHOWN:
                _fail(verdict, options.planted)
            if options.until_failed:
                break
        asyncio._set_running_loop(None)
        if played % 20 == 0:
            gc.collect()
    _say(
        id="T3",
        first=options.first,
        seeds=played,
        failed=len(failed),
        first_failed=failed[0] if failed else None,
        planted=options.planted,
        digest=digest,
        seconds=round(time.monotonic() - began, 1),
        virtual_hours=round(virtual_seconds / 3600, 1),
        **totals,
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
