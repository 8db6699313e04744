"""Why a person could not be signed in: a closed set of codes, each with a text on the sign-in page."""

from typing import Final, Literal

from dispatcher.core.errors import DispatcherError

Code = Literal["unavailable", "denied", "state", "token", "no_role"]
CODES: Final[tuple[Code, ...]] = ("unavailable", "denied", "state", "token", "no_role")


class SignOnError(DispatcherError):
    """A sign-in failed.

    The code is for the person. The message is for the operator's log: it contains no token and no code of the
    provider, and nothing of it is sent to the browser.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.reason: Code = code
