"""A real SMTP server on loopback that keeps what it accepted."""

import email
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from email.policy import default
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

PASSWORD = "smtp-password-canary"  # noqa: S105 -- of the test


class Inbox:
    """What the server accepted; `refusals` are its next responses instead."""

    def __init__(self) -> None:
        self.mails: list[Message] = []
        self.refusals: list[str] = []
        self.encrypted: list[bool] = []
        self.logins: list[tuple[bytes, bytes]] = []

    async def handle_DATA(  # noqa: N802 -- aiosmtpd calls it so
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        del server
        if self.refusals:
            return self.refusals.pop(0)
        assert isinstance(envelope.content, bytes)
        self.mails.append(email.message_from_bytes(envelope.content, policy=default))
        self.encrypted.append(session.ssl is not None)
        return "250 accepted"

    def authenticate(self, *given: Any) -> AuthResult:
        login = given[-1]
        assert isinstance(login, LoginPassword)
        self.logins.append((login.login, login.password))
        # Without `handled=False` the server would leave a wrong password without a response.
        return AuthResult(success=login.password == PASSWORD.encode(), handled=False)


@contextmanager
def smtp_server(inbox: Inbox, port: int, **options: Any) -> Iterator[int]:
    """Run the server on a port of loopback while the block runs."""
    controller = Controller(inbox, hostname="127.0.0.1", port=port, **options)
    controller.start()
    try:
        yield port
    finally:
        controller.stop()
