"""`dispatcher listen`: a receiver on this machine that prints each request."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from dispatcher.admin.resources.serialization import time_text
from dispatcher.cli.listen_endpoint import Registration, registered
from dispatcher.cli.output import say, say_json, tell
from dispatcher.cli.session import guarded, opened, settings_of
from dispatcher.core.errors import DispatcherError
from dispatcher.core.printable import escape
from dispatcher.dev.authority import authority_and_context
from dispatcher.dev.home import Home, home_directory
from dispatcher.dev.receiver import Behaviour, Received, Receiver, ReceiverRoute
from dispatcher.runtime.clock import SystemClock

_SHOWN_CHARACTERS_MAX = 2_000


def listen(
    *,
    config: Path | None,
    host: str,
    port: int,
    profile: str | None,
    secrets: Sequence[str],
    tls: bool,
    behaviour: Behaviour,
    registration: Registration | None,
    as_json: bool,
) -> None:
    """Receive requests until Ctrl-C."""

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        authority = ca_pem = context = None
        if tls:
            home = Home(home_directory(os.environ))
            home.directory.mkdir(mode=0o711, parents=True, exist_ok=True)
            authority, context = authority_and_context(home, SystemClock.now())
            ca_pem = await asyncio.to_thread(authority.read_text, encoding="ascii")
        route = ReceiverRoute(profile=profile, secrets=secrets, behaviour=behaviour)
        receiver = Receiver(route, heard=_print_json if as_json else print_request, tls=context)
        # Input that is not HTTP gets a 400; a traceback of the server would only alarm.
        logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
        try:
            bound = await receiver.start(host, port)
        except OSError as error:
            raise DispatcherError(
                f"cannot listen on {host}:{port}: {error.strerror}. Choose another --port."
            ) from error
        url = f"{'https' if tls else 'http'}://{host}:{bound}/"
        tell(f"listening on {url} (Ctrl-C stops it)")
        if authority is not None and registration is None:
            tell(f"trust this authority (ca_pem, or egress.ca_file): {authority}")
        if not secrets and registration is None:
            tell("no --secret was given: signatures are not verified")
        try:
            if registration is None:
                await stop.wait()
            else:
                await _listen_as_endpoint(config, registration, receiver, url, ca_pem, stop)
        finally:
            await receiver.stop()
        tell(
            f"{receiver.count} requests, {receiver.repeat_count} repeats, {receiver.invalid_count} not valid"
        )

    guarded(lambda: uvloop.run(run()))


async def _listen_as_endpoint(
    config: Path | None,
    registration: Registration,
    receiver: Receiver,
    url: str,
    ca_pem: str | None,
    stop: asyncio.Event,
) -> None:
    """Receive the deliveries of an endpoint that exists until `stop` is set."""
    settings = settings_of(config)
    async with (
        opened(settings) as session,
        registered(session, registration, url, ca_pem) as endpoint,
    ):
        receiver.expect(endpoint.profile, [endpoint.secret] if endpoint.secret else [])
        tell(
            f"endpoint {registration.name} ({endpoint.id}, {endpoint.profile}) sends"
            f" {', '.join(registration.event_types)} to {endpoint.url}; it is deleted at the end"
        )
        if endpoint.secret is not None:
            tell(f"secret: {endpoint.secret}")
        await stop.wait()


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
