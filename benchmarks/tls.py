"""Goal 1 over TLS: a drain on keep-alive connections, beside a bare `ClientSession.post` over TLS.

`python -m benchmarks tls [--short] [--events N] [--rounds N] [--json PATH]`. As `drain`, with an
nginx that speaks TLS 1.3 under an authority of its own, which both verify. Needs nginx.
"""

import asyncio
import tempfile
from pathlib import Path

from benchmarks.drain import SETTINGS, Figures, bare, drain, ratio, save_endpoint, say
from benchmarks.harness import Dispatcher, Goal, arguments, postgres, receiver, write_results


def main() -> None:
    """Runs the rounds and prints the ratio."""
    options = arguments(
        "tls", __doc__, short={"events": 10_000, "rounds": 5}, full={"events": 20_000, "rounds": 7}
    )
    rounds: dict[str, list[Figures]] = {"ours": [], "session": [], "lean": []}
    with tempfile.TemporaryDirectory() as name, postgres() as (server, url):
        directory = Path(name)
        with receiver(tls_directory=directory) as target:
            authority = str(directory / "ca.pem")
            asyncio.run(save_endpoint(url, target))
            daemon = Dispatcher(url, directory, DISPATCHER_EGRESS__CA_FILE=authority, **SETTINGS)
            daemon.start()
            try:
                drain(url, [daemon], target, server.process_id or 0, 2_000)  # warm
                for number in range(1, options.rounds + 1):
                    rounds["ours"].append(
                        drain(url, [daemon], target, server.process_id or 0, options.events)
                    )
                    for kind in ("session", "lean"):
                        rounds[kind].append(bare(kind, target, options.events, authority))
                    say(number, rounds)
            finally:
                daemon.stop()
    goal = Goal(
        1,
        "over TLS: deliveries/s over bare ClientSession.post",
        1.3,
        ratio(rounds["ours"], rounds["session"]),
    )
    write_results("tls", {"events": options.events, "rounds": rounds}, options.json, [goal])


if __name__ == "__main__":
    main()
