"""E-mail over SMTP: one message, one connection, one time limit.

What always holds: an attempt ends after `SECONDS_MAX`, whatever the server does; with STARTTLS or TLS
nothing is sent before the certificate is verified; an error names what the server responded, never the
password.
"""

import asyncio
import ssl
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from typing import Final

import aiosmtplib

from dispatcher.config.sections import SmtpSettings
from dispatcher.core.errors import DispatcherError
from dispatcher.core.notifying import QueuedMail
from dispatcher.core.printable import escape

SECONDS_MAX: Final = 30.0
"""For a whole attempt: connection, TLS, sign-in and message."""
ERROR_CHARACTERS_MAX: Final = 300


class MailError(DispatcherError):
    """An e-mail was not accepted; the message has the reason."""


class Mailer:
    """Sends e-mail through the server of the settings."""

    def __init__(
        self,
        settings: SmtpSettings,
        password: str | None,
        *,
        ca_file: str = "",
        seconds_max: float = SECONDS_MAX,
    ) -> None:
        self._settings = settings
        self._password = password
        self._seconds_max = seconds_max
        self._context = ssl.create_default_context()
        if ca_file:
            self._context.load_verify_locations(ca_file)

    async def send(self, mail: QueuedMail) -> None:
        """Send an e-mail; its Message-ID is the same at every attempt.

        Raises:
            MailError: the server rejected it, could not be reached, or took too long.
        """
        settings = self._settings
        try:
            async with asyncio.timeout(self._seconds_max):
                client = aiosmtplib.SMTP(
                    hostname=settings.host,
                    port=settings.port,
                    timeout=self._seconds_max,
                    use_tls=settings.security == "tls",
                    start_tls=settings.security == "starttls",
                    tls_context=self._context,
                    username=settings.username or None,
                    password=self._password if settings.username else None,
                )
                try:
                    await client.connect()
                    await client.send_message(message_of(mail, settings.sender))
                    await client.quit()
                finally:
                    client.close()
        except TimeoutError:
            raise MailError(f"no response within {self._seconds_max:.0f} s") from None
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            raise MailError(escape(str(error))[:ERROR_CHARACTERS_MAX]) from None


def message_of(mail: QueuedMail, sender: str) -> EmailMessage:
    """Return an e-mail as it is sent; a line break can enter no header."""
    message = EmailMessage()
    message["From"] = sender
    message["To"] = mail.address
    message["Subject"] = " ".join(mail.subject.split())
    message["Date"] = format_datetime(mail.created_at)
    domain = parseaddr(sender)[1].rpartition("@")[2]
    unique = f"{mail.id}.{mail.created_at.timestamp():.6f}"
    message["Message-ID"] = f"<{unique}@{domain}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail.body)
    return message
