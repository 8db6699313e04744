"""Notifies the supervisor (systemd): ready, reloading, stopping, and that the loop still turns.

The protocol is one datagram per message to the Unix socket named in NOTIFY_SOCKET; a name that
begins with `@` is in the abstract namespace. Without the variable every call does nothing. A send
never blocks and never raises: a supervisor that does not listen must not hold deliveries up.

Source: sd_notify(3), sd_watchdog_enabled(3).
"""

import os
import socket
import time
from collections.abc import Mapping

MICROSECONDS = 1_000_000


class Notifier:
    """Sends state changes; make it with `from_environment`."""

    def __init__(self, address: str | None, watchdog_seconds: float | None = None) -> None:
        self._address = address
        self.watchdog_seconds = watchdog_seconds
        """The time after which the supervisor restarts a silent process; None: no watchdog."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Notifier":
        """Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID; malformed ones count as unset."""
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return cls(None)
        seconds = None
        microseconds = environ.get("WATCHDOG_USEC", "")
        meant_for = environ.get("WATCHDOG_PID", "")
        if microseconds.isascii() and microseconds.isdigit() and int(microseconds) > 0:
            seconds = int(microseconds) / MICROSECONDS
        if meant_for and meant_for != str(os.getpid()):
            seconds = None
        return cls(address, seconds)

    def ready(self) -> bool:
        """Report that start-up, or a reload, is finished."""
        return self._send("READY=1")

    def reloading(self) -> bool:
        """Report that settings are being read again; `ready` ends it."""
        return self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> bool:
        """Report that the drain has begun."""
        return self._send("STOPPING=1")

    def watchdog(self) -> bool:
        """Feeds the watchdog; only to be called while every stage turns."""
        return self._send("WATCHDOG=1")

    def _send(self, message: str) -> bool:
        if self._address is None:
            return False
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.setblocking(False)
                channel.sendto(message.encode(), address)
        except OSError:
            return False
        return True
