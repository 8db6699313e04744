"""Goal 9: whether a long history slows the drain, or the listing of a page.

`python -m benchmarks growth [--short] [--rows N] [--rounds N] [--against COMMIT|FOLDER] [--json PATH]`.
Two databases: one as it is new, one whose history of 30 days has N deliveries with their events and
attempts. Each round: the same drain on one, then on the other; then 100 readings of the first page of
deliveries on each, over the API. With `--against`, both have a history, and the other one belongs to
another version of this project.
"""

import os
import tempfile
import time
from pathlib import Path

from benchmarks.contenders import Contender, checkouts
from benchmarks.drain import (
    SETTINGS,
    TENANT,
    WARM_DELIVERIES,
    Figures,
    drain,
    ratio,
    say,
    subscribe,
)
from benchmarks.harness import Dispatcher, Goal, arguments, postgres, receiver, write_results

PAGES = 100


def page_seconds(daemon: Dispatcher) -> float:
    """Returns the mean time of the first page of deliveries."""
    started = time.perf_counter()
    for _ in range(PAGES):
        daemon.request("deliveries?limit=50")
    return (time.perf_counter() - started) / PAGES


def main() -> None:
    """Runs the rounds and prints the ratios."""
    options = arguments(
        "growth",
        __doc__,
        short={"rows": 200_000, "events": 10_000, "rounds": 5},
        full={"rows": 10_000_000, "events": 20_000, "rounds": 5},
        against=True,
    )
    with (
        checkouts([options.against]) as versions,
        postgres() as (server, _),
        receiver() as target,
        tempfile.TemporaryDirectory() as name,
    ):
        other = versions[-1].name if options.against else "new"
        ours = Contender("ours", server, Path(name), **SETTINGS)
        theirs = Contender("theirs", server, Path(name), versions[-1], **SETTINGS)
        contenders = {other: theirs, "ours": ours}
        rounds: dict[str, list[Figures]] = {other: [], "ours": []}
        pages: dict[str, list[float]] = {other: [], "ours": []}
        for contender in contenders.values():
            if contender is ours or options.against:
                contender.seed(options.rows)
            subscribe(contender, target, 1)
        for number in range(1, options.rounds + 1):
            for kind, contender in contenders.items():
                with contender.running() as daemon:
                    given = contender.url, [daemon], target, server.process_id or 0
                    drain(*given, WARM_DELIVERIES, tenant=TENANT)
                    rounds[kind].append(drain(*given, options.events, tenant=TENANT))
                    page_seconds(daemon)
                    pages[kind].append(page_seconds(daemon))
            say(number, rounds)
    listing = [a / b for a, b in zip(pages["ours"], pages[other], strict=True)]
    drained = ratio(rounds["ours"], rounds[other])
    after = f"{options.rows:,} old deliveries"
    goals = [
        Goal(9, f"drain over {after}, over none", 0.9, drained),
        Goal(9, "first page of deliveries over the same without history", 2, listing, at_least=False),
    ]  # fmt: skip
    if options.against:
        goals = [
            Goal(9, f"drain over {after}, over that of {other}", 1.0, drained),
            Goal(9, f"first page over {after}, over that of {other}", 1.0, listing, at_least=False),
        ]
    print(f"load average {os.getloadavg()[0]:.1f}")
    write_results(
        "growth_against" if options.against else "growth",
        {"rows": options.rows, "against": other, "rounds": rounds, "page_seconds": pages},
        options.json,
        goals,
    )


if __name__ == "__main__":
    main()
