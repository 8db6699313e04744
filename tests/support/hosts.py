"""Hosts on one machine: network namespaces that are joined by a router, whose links can be cut, split and slowed down.

    host a ── veth ──┐
    host b ── veth ──┼── router
    host c ── veth ──┘

Nothing is configured in the namespace of the test, which reaches the databases by their Unix sockets. The namespaces
end with the processes that hold them, and those end with the test.
"""

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.forking import die_with_parent

NETWORK = "198.18.80"
"""Of the range that is set apart for tests of networks: RFC 2544."""
HOSTS_MAX = 60
_CLONE_NEWNET = 0x40000000


class Namespace:
    """A network namespace, held by a process that does nothing."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            [str(shutil.which("unshare")), "--net", "sh", "-c", "echo ready; exec sleep 1000000"],
            stdout=subprocess.PIPE,
            preexec_fn=die_with_parent,  # noqa: PLW1509 -- one system call, no lock of the parent is touched
        )
        assert self._holder.stdout is not None
        is_ready = self._holder.stdout.readline() == b"ready\n"
        self._holder.stdout.close()
        self.pid = str(self._holder.pid)
        if not is_ready:
            self.end()
            pytest.skip("network namespaces are not allowed here")
        self.prefix: Sequence[str] = (str(shutil.which("nsenter")), "--target", self.pid, "--net")
        """Starts a program in this namespace."""
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *command: str) -> str:
        """Run a command in the namespace and return its output."""
        done = subprocess.run(
            [*self.prefix, *command], check=True, capture_output=True, text=True, timeout=10
        )
        return done.stdout

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Move the calling thread into the namespace: children that it starts meanwhile are there."""
        library = ctypes.CDLL(None, use_errno=True)
        home, there = (
            os.open(f"/proc/{pid}/ns/net", os.O_RDONLY) for pid in ("thread-self", self.pid)
        )
        try:
            if library.setns(there, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            yield
        finally:
            library.setns(home, _CLONE_NEWNET)
            os.close(home)
            os.close(there)

    def end(self) -> None:
        self._holder.kill()
        self._holder.wait(10)


class Host(Namespace):
    """A host with one link to the router."""

    def __init__(self, router: Namespace, number: int) -> None:
        super().__init__()
        self._router = router
        self._link = f"h{number}"
        self.address = f"{NETWORK}.{4 * number + 2}"
        gateway = f"{NETWORK}.{4 * number + 1}"
        router.run(
            "ip", "link", "add", "dev", self._link, "type", "veth",
            "peer", "name", "out", "netns", self.pid,
        )  # fmt: skip
        router.run("ip", "address", "add", f"{gateway}/30", "dev", self._link)
        router.run("ip", "link", "set", self._link, "up")
        self.run("ip", "address", "add", f"{self.address}/30", "dev", "out")
        self.run("ip", "link", "set", "out", "up")
        self.run("ip", "route", "add", "default", "via", gateway)

    def set_link(self, state: str) -> None:
        """Set the router's end `up` or `down`; while it is down, the router reports the host as unreachable."""
        self._router.run("ip", "link", "set", self._link, state)

    def slow_down(self, rate: str) -> None:
        """Limit the link to a rate in both directions; packets queue for up to a second before they are lost."""
        for place, link in ((self._router, self._link), (self, "out")):
            place.run(
                "tc", "qdisc", "add", "dev", link, "root",
                "tbf", "rate", rate, "burst", "4kb", "latency", "1s",
            )  # fmt: skip

    def speed_up(self) -> None:
        """Lift the limit of `slow_down`."""
        self._router.run("tc", "qdisc", "del", "dev", self._link, "root")
        self.run("tc", "qdisc", "del", "dev", "out", "root")


class Network:
    """A router and its hosts."""

    def __init__(self) -> None:
        self._router = Namespace()
        self._hosts: list[Host] = []
        self._router.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")

    def host(self) -> Host:
        """Add a host."""
        assert len(self._hosts) < HOSTS_MAX
        self._hosts.append(Host(self._router, len(self._hosts)))
        return self._hosts[-1]

    def split(self, one: Host, other: Host) -> None:
        """Drop every packet between two hosts without a word to either: no RST, no ICMP, no error."""
        self._rule("add", one, other)

    def join(self, one: Host, other: Host) -> None:
        """End a split."""
        self._rule("del", one, other)

    def _rule(self, verb: str, one: Host, other: Host) -> None:
        for source, target in ((one, other), (other, one)):
            self._router.run(
                "ip", "rule", verb, "from", source.address, "to", target.address, "blackhole"
            )

    def end(self) -> None:
        for namespace in (*self._hosts, self._router):
            with contextlib.suppress(ProcessLookupError):
                namespace.end()


@contextmanager
def network() -> Iterator[Network]:
    """Yield a network; skip where there can be none."""
    missing = [name for name in ("ip", "tc", "unshare", "nsenter") if shutil.which(name) is None]
    if sys.platform != "linux" or os.geteuid() != 0 or missing:
        pytest.skip(
            f"hosts in network namespaces need Linux, root, ip, tc, unshare and nsenter {missing}"
        )
    if not Path("/proc/thread-self/ns/net").exists():
        pytest.skip("this kernel has no network namespaces")
    made = Network()
    try:
        yield made
    finally:
        made.end()
