"""`dispatcher listen`: a receiver on this machine that prints each request."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence

import uvloop

from dispatcher.admin.resources.serialization import time_text
from dispatcher.cli.output import say, say_json, tell
from dispatcher.cli.session import guarded
from dispatcher.core.errors import DispatcherError
from dispatcher.core.printable import escape
from dispatcher.dev.authority import authority_and_context
from dispatcher.dev.home import Home, home_directory
from dispatcher.dev.receiver import Behaviour, Received, Receiver, ReceiverRoute
from dispatcher.runtime.clock import SystemClock

_SHOWN_CHARACTERS_MAX = 2_000


def listen(
    *,
    host: str,
    port: int,
    profile: str | None,
    secrets: Sequence[str],
    tls: bool,
    behaviour: Behaviour,
    as_json: bool,
) -> None:
    """Receive requests until Ctrl-C."""

    async def run() -> None:
        authority = context = None
        if tls:
            home = Home(home_directory(os.environ))
            home.directory.mkdir(mode=0o711, parents=True, exist_ok=True)
            authority, context = authority_and_context(home, SystemClock.now())
        receiver = Receiver(
            ReceiverRoute(profile=profile, secrets=secrets, behaviour=behaviour),
            heard=_print_json if as_json else print_request,
            tls=context,
        )
        # Input that is not HTTP gets a 400; a traceback of the server would only alarm.
        logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
        try:
            bound = await receiver.start(host, port)
        except OSError as error:
            raise DispatcherError(
                f"cannot listen on {host}:{port}: {error.strerror}; choose another --port"
            ) from error
        tell(f"listening on {'https' if tls else 'http'}://{host}:{bound}/ (Ctrl-C stops it)")
        if authority is not None:
            tell(f"trust this authority (ca_pem, or egress.ca_file): {authority}")
        if not secrets:
            tell("no --secret was given: signatures are not verified")
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        try:
            await stop.wait()
        finally:
            await receiver.stop()
        tell(
            f"{receiver.count} requests, {receiver.repeat_count} repeats, {receiver.invalid_count} not valid"
        )

    guarded(lambda: uvloop.run(run()))


def print_request(received: Received) -> None:
    """Print a request in human-readable form."""
    repeat = " REPEAT" if received.is_repeat else ""
    say(
        f"{time_text(received.at)} {received.method} {received.path} -> {received.status} {received.verdict}{repeat}"
    )
    for name, value in received.headers.items():
        say(f"    {name}: {value}")
    text = received.body.decode("utf-8", "replace")
    shown = escape(text[:_SHOWN_CHARACTERS_MAX])
    say(f"    {shown}{'…' if len(text) > _SHOWN_CHARACTERS_MAX else ''}")
    sys.stdout.flush()


def _print_json(received: Received) -> None:
    value = {
        **received._asdict(),
        "at": time_text(received.at),
        "body": received.body.decode("utf-8", "replace"),
    }
    say_json(value, indent=False)
    sys.stdout.flush()
