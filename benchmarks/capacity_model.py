"""The capacity model: from events a second, fan-out, size and retention to CPU, rows, disk and connections.

Pure arithmetic; `docs/explanation/scaling.md` explains it and shows figures that a test compares with this
module. `python -m benchmarks capacity` measures `Costs` on a machine and checks the predictions.

CPU has these parts: what idling costs, what each round costs (a claim, its fan-out, a commit of results),
what each attempt costs, and in Postgres the producers' own commits. Events that come while a round
runs share the next one, so the number of rounds levels off; and the nearer a deployment comes to its
drain rate, the longer each round takes and the fewer there are.
"""

import math
from pathlib import Path
from typing import NamedTuple

import orjson

COMMITTED = Path(__file__).resolve().parent / "results" / "capacity.json"
CORE_SHARE = 0.7
"""How much of a core to plan with: above it, bursts wait noticeably."""
SECONDS_PER_DAY = 86_400
MICROSECONDS = 1e6


class Cpu(NamedTuple):
    """CPU of one program."""

    idle_cores: float
    round_us: float
    rounds_max: float  # per second
    attempt_us: float
    commit_us: float = 0.0  # the producer's own insert and commit; Postgres's alone


class Disk(NamedTuple):
    """Bytes on disk with indexes, beside the data itself."""

    event_bytes: float  # the event's row, beside its data
    body_bytes: float  # one row an event and profile, beside its data
    delivery_bytes: float
    attempt_bytes: float
    wal_attempt_bytes: (
        float  # write-ahead log, a delivery of one attempt, its share of the event included
    )


class Costs(NamedTuple):
    """What one machine was measured to need."""

    daemon: Cpu
    postgres: Cpu
    disk: Disk
    drain_per_second: float  # deliveries, one replica, with a backlog


class Load(NamedTuple):
    """What is asked for."""

    events_per_second: float
    fan_out: float
    data_bytes: int = 500
    attempts_per_delivery: float = 1.0
    days: int = 30
    profiles: int = 1


class Need(NamedTuple):
    """What it takes."""

    deliveries_per_second: float
    daemon_cores: float
    postgres_cores: float
    replicas: int
    connections: int
    rows_per_day: float
    disk_bytes: float


def attempts_per_second(load: Load) -> float:
    """Returns how many requests are made."""
    return load.events_per_second * load.fan_out * load.attempts_per_delivery


def rounds_per_second(load: Load, rounds_max: float, drain_per_second: float) -> float:
    """Returns how often there is a round for events that are committed one by one."""
    room = 1 - attempts_per_second(load) / drain_per_second
    if room <= 0:
        return 0.0  # always in the middle of large batches
    return load.events_per_second / (1 + load.events_per_second / (rounds_max * room))


def cores(load: Load, cpu: Cpu, drain_per_second: float) -> float:
    """Returns how many cores one program keeps busy."""
    rounds = rounds_per_second(load, cpu.rounds_max, drain_per_second)
    busy_us = (
        rounds * cpu.round_us
        + attempts_per_second(load) * cpu.attempt_us
        + load.events_per_second * cpu.commit_us
    )
    return cpu.idle_cores + busy_us / MICROSECONDS


def bytes_per_event(load: Load, disk: Disk) -> float:
    """Returns what one event leaves on disk: its row, its bodies, its deliveries and attempts."""
    return (
        disk.event_bytes
        + load.data_bytes
        + load.profiles * (disk.body_bytes + load.data_bytes)
        + load.fan_out * (disk.delivery_bytes + load.attempts_per_delivery * disk.attempt_bytes)
    )


def predict(load: Load, costs: Costs, *, pool_size: int = 10) -> Need:
    """Returns what a load takes; two replicas at least, so that one may fail."""
    drain = costs.drain_per_second
    daemon_cores = cores(load, costs.daemon, drain)
    busiest = max(daemon_cores, attempts_per_second(load) / drain)
    replicas = max(2, math.ceil(busiest / CORE_SHARE))
    per_event = 1 + load.profiles + load.fan_out * (1 + load.attempts_per_delivery)
    events_per_day = load.events_per_second * SECONDS_PER_DAY
    return Need(
        deliveries_per_second=load.events_per_second * load.fan_out,
        daemon_cores=daemon_cores,
        postgres_cores=cores(load, costs.postgres, drain),
        replicas=replicas,
        connections=replicas * (pool_size + 1),
        rows_per_day=events_per_day * per_event,
        disk_bytes=events_per_day * load.days * bytes_per_event(load, costs.disk),
    )


def committed_costs() -> Costs:
    """Returns the costs that were measured last and committed."""
    costs = orjson.loads(COMMITTED.read_bytes())["costs"]
    return Costs(
        daemon=Cpu(**costs["daemon"]),
        postgres=Cpu(**costs["postgres"]),
        disk=Disk(**costs["disk"]),
        drain_per_second=costs["drain_per_second"],
    )
