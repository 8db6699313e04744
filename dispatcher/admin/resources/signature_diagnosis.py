"""Why a receiver rejects a signature: a captured request, and the finding."""

from typing import Annotated, Final

from pydantic import Field, StringConstraints

from dispatcher.admin.resources.base import Request, Response, resource
from dispatcher.admin.resources.fields import Bounds

BODY_CHARACTERS_MAX: Final = 1 << 20
SECRET_CHARACTERS_MAX: Final = 4_096
HEADERS_MAX: Final = 200
HEADER_CHARACTERS_MAX: Final = 8_192


class CapturedRequest(Request):
    """The secret that a receiver uses, and the request as it received it.

    Headers and body that are left out are those that the dispatcher signed.
    """

    secret: Annotated[str, StringConstraints(max_length=SECRET_CHARACTERS_MAX)] = Field(
        description="The secret of the receiver, exactly as its code reads it. Neither stored nor logged.",
        json_schema_extra={"writeOnly": True},
    )
    headers: (
        Annotated[
            list[Annotated[str, StringConstraints(max_length=HEADER_CHARACTERS_MAX)]],
            Field(max_length=HEADERS_MAX),
        ]
        | None
    ) = Field(
        default=None,
        description="The headers as received, each as `Name: value`. Left out: the headers of the attempt.",
        examples=[["X-WMS-Signature: sha256=2f0d…"]],
    )
    body: Annotated[str, StringConstraints(max_length=BODY_CHARACTERS_MAX)] | None = Field(
        default=None, description="The body as received, as text. Left out: the body that was sent."
    )
    computed: Annotated[str, StringConstraints(max_length=HEADER_CHARACTERS_MAX)] | None = Field(
        default=None,
        description="The signature that the receiver's code computed, which it compares with the header.",
    )
    attempt_number: Annotated[int, Bounds(1, 1_000_000, whole=True)] | None = Field(
        default=None, description="The attempt whose headers are meant. Left out: the last one."
    )


@resource
class SignatureFinding(Response):
    """What is wrong with the request, the secret or the receiver's code; the code `valid`: nothing is."""

    code: str
    message: str
    fix: str
    attempt_number: int | None
    signature_header: str
