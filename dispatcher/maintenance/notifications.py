"""Messages to people about problems of endpoints.

    operational event ─(trigger, same transaction)─▶ inbox ─ turn ─▶ problems, messages (one transaction)
                                                                       ├─▶ outbox: an event for one endpoint
                                                                       └─▶ queue of e-mail ─▶ SMTP

What is always true: all state is in the database, and a turn is one transaction, so that neither a crash
nor a takeover loses or repeats a message. One replica at a time has the turn. An endpoint for people gets
its messages by the usual path, with retries and a log; deliveries of messages raise no events, so that a target
that is down causes no further messages.

Slow or absent Postgres: the next turn retries. A slow SMTP server delays only other e-mail: each attempt has a time
limit, and a failed one is repeated with backoff. A crash between the server's acceptance and the commit repeats
that e-mail, under the same Message-ID.
"""

import asyncio
from typing import Final

import structlog

from dispatcher.core.errors import StoreUnavailableError
from dispatcher.core.notifying import LanguageCode, Message, decide
from dispatcher.outbound.mail import SECONDS_MAX, Mailer, MailError
from dispatcher.runtime import probe
from dispatcher.runtime.backoff import Outage
from dispatcher.runtime.clock import Clock
from dispatcher.store.notifications import Notifications

_log = structlog.get_logger("dispatcher.maintenance.notifications")

SECONDS_BETWEEN: Final = 5.0
CLAIM_SECONDS: Final = 2 * SECONDS_MAX
"""For how long no other replica claims an e-mail that is being sent."""
MAIL_RETRY_SECONDS: Final = (30.0, 120.0, 600.0, 3600.0, 21_600.0)
"""Delays after failed attempts; then the e-mail is given up."""


class NotificationLoop:
    """Two loops: turns, and e-mail; neither waits for the other."""

    def __init__(
        self,
        store: Notifications,
        mailer: Mailer | None,
        *,
        clock: Clock,
        public_url: str = "",
        language: LanguageCode = "en",
        seconds_between: float = SECONDS_BETWEEN,
    ) -> None:
        """Without a mailer e-mail waits in the queue; without a public URL messages have no link."""
        self._store = store
        self._mailer = mailer
        self._clock = clock
        self._public_url = public_url
        self._language = language
        self._seconds_between = seconds_between
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """End both loops after what they are at."""
        self._stop.set()

    async def run(self) -> None:
        """Take turns until stopped."""
        outage = Outage(_log, "notifications.stalled", "notifications.resumed")
        while not self._stop.is_set():
            try:
                await self.turn()
            except StoreUnavailableError as error:
                outage.began(error)
            else:
                outage.ended()
            await self._pause()

    async def run_mail(self) -> None:
        """Send e-mail until stopped."""
        outage = Outage(_log, "mail.stalled", "mail.resumed")
        while self._mailer is not None and not self._stop.is_set():
            sent = False
            try:
                sent = await self.send_one()
            except StoreUnavailableError as error:
                outage.began(error)
            else:
                outage.ended()
            if not sent:
                await self._pause()

    async def turn(self) -> list[Message]:
        """Read new events, and write the messages that are due; return them."""
        messages: list[Message] = []
        async with self._store.turn() as turn:
            if turn is not None:
                happenings = await turn.happenings()
                now = self._clock.now()
                outcome = decide(await turn.rules(), await turn.problems(), happenings, now)
                for one in outcome.saved:
                    await turn.save(one)
                for one in outcome.forgotten:
                    await turn.forget(one)
                for rule in outcome.digested:
                    await turn.digested(rule, now)
                messages = [
                    one._replace(public_url=self._public_url, language=self._language)
                    for one in outcome.messages
                ]
                for message in messages:
                    await turn.send(message)
        for message in messages:
            _log.info(
                "notification.queued",
                notification_id=message.rule.id,
                kind=message.kind,
                problems=len(message.problems),
            )
        probe.hit("notifications.turned", messages=len(messages))
        return messages

    async def send_one(self) -> bool:
        """Send the e-mail that has been due longest; return whether there was one."""
        assert self._mailer is not None  # noqa: S101 -- run_mail asks
        mail = await self._store.claim_mail(CLAIM_SECONDS)
        if mail is None:
            return False
        try:
            await self._mailer.send(mail)
        except MailError as error:
            _log.warning(
                "mail.failed",
                notification_id=mail.notification_id,
                attempt=mail.attempt_count,
                error=str(error),
            )
            if mail.attempt_count <= len(MAIL_RETRY_SECONDS):
                await self._store.postpone_mail(mail, MAIL_RETRY_SECONDS[mail.attempt_count - 1])
            else:
                _log.error(
                    "mail.abandoned",
                    notification_id=mail.notification_id,
                    attempts=mail.attempt_count,
                )
                await self._store.delete_mail(mail)
        else:
            _log.info("mail.accepted", notification_id=mail.notification_id)
            await self._store.delete_mail(mail)
        probe.hit("notifications.mailed", attempt=mail.attempt_count)
        return True

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._seconds_between):
                await self._stop.wait()
        except TimeoutError:
            return
