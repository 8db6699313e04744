"""`python -m benchmarks [NAME] [options]`: runs one benchmark, or lists them."""

import platform
import runpy
import sys

from benchmarks.harness import interpreter_build

BENCHMARKS = {
    "all": "every goal, then the tables of docs/explanation/performance.md and plots; --short: a quarter of an hour",
    "drain": "goals 1 and 2: deliveries/s and CPU, beside bare ClientSession.post and the bare lean exchange",
    "tls": "goal 1 over TLS, beside bare ClientSession.post over TLS",
    "peers": "goal 1 beside pg-boss, Graphile Worker, PgQueuer and Procrastinate; installs them",
    "stages": "goal 2: CPU of each stage of the hot path by itself, to compare one change with the next",
    "bodies": "how long decoding a request body of 1 MiB holds the event loop, and its memory",
    "latency": "goal 3: event to request received at 200/s, through SQL and the API, also next to busy loops",
    "publish": "HTTP publishing, single events and batches, beside one INSERT per transaction",
    "producers": "goal 4: producers' commits/s, with the dispatcher busy, asleep and stopped",
    "rates": "the cost of an event and its latency at 1 to 5,000 events/s",
    "fanout": "goal 5: one event to 1,000 endpoints, and to 20",
    "isolation": "goal 6: healthy endpoints beside a dead one with a backlog",
    "wheel": "goal 7: a million timers beside heapq and call_later",
    "recovery": "goal 8: kill -9 with a million retries pending",
    "growth": "goal 9: the drain and a page on a long history",
    "soak": "goal 9 over time: memory, dead rows and latency under a steady load with failures",
    "replicas": "goal 10: a drain by two processes",
    "scaling": "the drain by 1, 2 and 4 replicas, to 10 to 20,000 endpoints, over up to 100 million old deliveries",
    "roles": "deliveries next to a saturated API, in one process and with a process of their own",
    "capacity": "the capacity model: predicts CPU and disk at three sizes, and measures them",
    "indexes": "what the indexes of pages cost each row that is written",
    "pages": "lists and shows on a million deliveries, with every filter",
    "console": "the console's pages and the API's lists over HTTP, on a million deliveries",
    "endpoints": "20,000 endpoints: start, memory, idle CPU, how soon a change is seen; what forgetting lanes costs",
    "search": "what a search in payloads reads in its budget, and what it costs a drain",
    "viewers": "what ten people with the live tail open cost a drain",
}


def main() -> int:
    """Runs the benchmark that is named; returns the exit code."""
    if len(sys.argv) < 2 or sys.argv[1] not in BENCHMARKS:
        print("usage: python -m benchmarks NAME [--help]\n")
        for name, text in BENCHMARKS.items():
            print(f"  {name:<10} {text}")
        return 0 if len(sys.argv) < 2 else 2
    name = sys.argv.pop(1)
    sys.argv[0] = f"benchmarks {name}"
    if "--help" not in sys.argv:
        print(f"Python {platform.python_version()}: {interpreter_build()}", file=sys.stderr)
    runpy.run_module(f"benchmarks.{name}", run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main())
