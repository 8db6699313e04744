"""`dispatcher delivery`: the deliveries of each event to each endpoint."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.admin.resources.delivery import DeliveriesQuery, ExportQuery
from dispatcher.admin.resources.job import RATE_DEFAULT, JobOptions
from dispatcher.cli.commands import CommandGroup
from dispatcher.cli.common import DryRun, Yes, confirm, run_step
from dispatcher.cli.completion import complete_names
from dispatcher.cli.job import Rate, create_job
from dispatcher.cli.output import (
    Column,
    Output,
    age_column,
    fields_of,
    say,
    say_fields,
    say_file,
    say_object,
    say_page,
    say_table,
    tell,
)
from dispatcher.cli.resource_options import EndpointName, Fields, takes
from dispatcher.cli.values import read_body
from dispatcher.core.business_key import business_key

if TYPE_CHECKING:
    from dispatcher.admin.resources.delivery import Attempt, Delivery
    from dispatcher.admin.resources.delivery_report import DeliveryReport
    from dispatcher.cli.session import Session

group = CommandGroup()

Id = Annotated[str, typer.Argument(metavar="ID", help="The delivery's id, wh_…")]


def columns(
    endpoint_names: Mapping[str, str], last_attempts: "Mapping[str, Attempt] | None" = None
) -> tuple[Column, ...]:
    """Return the columns of deliveries, with the names of their endpoints and, if given, their last status codes."""

    def code(row: "Delivery") -> int | None:
        attempt = (last_attempts or {}).get(row.id)
        return None if attempt is None else attempt.response_code

    return (
        Column("ID", "id"),
        Column("TENANT", "tenant", is_wide=True),
        Column("STATE", "state", is_state=True),
        *(() if last_attempts is None else (Column("CODE", code),)),
        Column("REASON", "reason", is_wide=True),
        Column("KEY", lambda row: business_key(row.labels), can_be_cut=True, is_cut_last=True),
        Column("ORDERING KEY", "ordering_key", is_wide=True),
        Column("TYPE", "event_type", can_be_cut=True, can_be_left_out=True),
        Column("EVENT ID", "event_id", is_wide=True),
        Column(
            "ENDPOINT",
            lambda row: endpoint_names.get(row.endpoint_id, row.endpoint_id),
            can_be_cut=True,
        ),
        Column("ENDPOINT ID", "endpoint_id", is_wide=True),
        Column("ATTEMPTS", "attempt_count", is_wide=True),
        age_column("next_attempt_at", "NEXT")._replace(is_wide=True),
        age_column(),
    )


_ATTEMPT_COLUMNS = (
    Column("NUMBER", "attempt_number"),
    Column("TRIGGER", "trigger"),
    Column("OUTCOME", "outcome", is_state=True),
    Column("CODE", "response_code"),
    Column("SECONDS", "latency_seconds"),
    Column("ERROR OR RESPONSE", lambda row: row.error or row.response_body, can_be_cut=True),
)


@group.command("list")
@takes(DeliveriesQuery)
def page(
    context: typer.Context,
    fields: Fields,
    output: Output,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Print new ones and changes until Ctrl-C.")
    ] = False,
) -> None:
    """List deliveries, newest first.

    KEY is the label by which people know the event, such as an order number; --search finds it. CODE is the status code
    of the last response. With --watch, the newest come last, and -o json prints one object on each line.

    Examples:
      dispatcher delivery list --state failed --since 1d
      dispatcher delivery list --endpoint ERP -o wide
      dispatcher delivery list --search ORD-2026-1234
      dispatcher delivery list --endpoint ERP --watch
    """
    if watch and fields.get("cursor") is not None:
        raise typer.BadParameter("conflicts with --watch.", param_hint="--cursor")

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.deliveries import DeliveryOperations

        query = DeliveriesQuery.of(**await session.resolved(fields))
        if watch:
            from dispatcher.cli.watching import watch_deliveries

            await watch_deliveries(session, query, output)
            return
        operations = DeliveryOperations(session.deployment)
        answer = await operations.page(session.actor, query)
        names, last = {}, {}
        if not output.is_data:
            names = await session.endpoint_names(one.endpoint_id for one in answer.items)
            last = await operations.last_attempts(session.actor, answer.items)
        hint = session.type_hint(query.event_type)
        say_page(answer, columns(names, last), output=output, empty=f"no deliveries{hint}")

    run_step(context, step)


@group.command()
@takes(ExportQuery)
def export(context: typer.Context, fields: Fields) -> None:
    """Export deliveries as a file, newest first.

    Each row has the delivery and its last attempt, without bodies. A file has the newest 10,000 at most: if more match,
    is_complete is false in JSON, and the last row of CSV is a note.

    Examples:
      dispatcher delivery export --state failed --since 1d > failed.csv
      dispatcher delivery export --endpoint ERP --format json
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.deliveries import DeliveryOperations
        from dispatcher.admin.operations.endpoint_reader import EndpointReader
        from dispatcher.admin.operations.export_files import export_text

        query = ExportQuery.of(**await session.resolved(fields))
        deliveries, endpoints = (
            DeliveryOperations(session.deployment),
            EndpointReader(session.deployment),
        )
        async for part in export_text(deliveries, endpoints, session.actor, query):
            say_file(part)

    run_step(context, step)


@group.command()
def show(context: typer.Context, delivery_id: Id, output: Output) -> None:
    """Show a delivery with its attempts and the next step.

    Examples:
      dispatcher delivery show wh_01kat9zma1gk18t0mvx8z4q6re
    """

    def human(report: "DeliveryReport") -> None:
        advice = {"advice": report.why.advice} if report.why.advice else {}
        words = {"why": report.why.text, "next": report.next.text, **advice}
        say_fields({**fields_of(report.delivery), **words}, leave_out=("attempts",))
        say()
        attempt_columns = (
            *_ATTEMPT_COLUMNS[:-1], age_column("attempted_at"), _ATTEMPT_COLUMNS[-1],
        )  # fmt: skip
        say_table(report.delivery.attempts, attempt_columns, "no attempts so far", output)
        for attempt in report.delivery.attempts:
            if attempt.response_headers:
                say()
                say(f"response headers of attempt {attempt.attempt_number}:")
                for header in attempt.response_headers:
                    say(f"  {header.name}: {header.value}")

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.deliveries import DeliveryOperations
        from dispatcher.admin.operations.delivery_report import DeliveryReports

        if output.is_data:
            operations = DeliveryOperations(session.deployment)
            say_object(await operations.show(session.actor, delivery_id), output=output)
        else:
            human(await DeliveryReports(session.deployment).delivery(session.actor, delivery_id))

    run_step(context, step)


@group.command()
def diagnose(
    context: typer.Context,
    delivery_id: Id,
    output: Output,
    secret: Annotated[
        str,
        typer.Option(metavar="SECRET", help="The receiver's secret: -, @FILE or env:NAME."),
    ],
    header: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HEADER", help="A header as received, 'Name: value'. May be repeated."
        ),
    ] = None,
    body: Annotated[
        str | None, typer.Option(metavar="FILE", help="The body as received, or -.")
    ] = None,
    computed: Annotated[
        str | None,
        typer.Option(metavar="SIGNATURE", help="The signature that the receiver's code computed."),
    ] = None,
    attempt: Annotated[
        int | None, typer.Option(metavar="N", help="The attempt. Default: the last one.")
    ] = None,
) -> None:
    """Name the mistake of a receiver that rejects the signature.

    Headers and body that you leave out are those that the dispatcher signed. The secret is compared with those of the
    endpoint and of the other endpoints of its tenant, and is neither stored nor logged. The command exits with 0 if the
    signature is valid and with 1 if it is not. `dispatcher verify` does the same without a database.

    Examples:
      dispatcher delivery diagnose wh_01kat9zma1gk18t0mvx8z4q6re --secret env:SECRET
    """
    from dispatcher.cli.values import secret_text

    if body == "-" and secret == body:
        raise typer.BadParameter(
            "standard input is already used for the body. Use @FILE or env:NAME.",
            param_hint="--secret",
        )
    fields = {
        "secret": secret_text(secret, "--secret"),
        "headers": header or None,
        "body": None if body is None else read_body(body).decode("utf-8", "replace"),
        "computed": computed,
        "attempt_number": attempt,
    }

    codes: list[str] = []

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.signature_diagnosis import SignatureDiagnosis
        from dispatcher.admin.resources.signature_diagnosis import CapturedRequest

        found = await SignatureDiagnosis(session.deployment).diagnose(
            session.actor, delivery_id, CapturedRequest.of(**fields)
        )
        if output.is_data:
            say_object(found, output=output)
        elif found.code == "valid":
            say("valid")
            tell(found.fix)
        else:
            say(f"not valid ({found.code}): {found.message}")
            tell(found.fix)
        codes.append(found.code)

    run_step(context, step)
    if codes != ["valid"]:
        raise typer.Exit(1)


@group.command()
@takes(JobOptions)
def resend(
    context: typer.Context,
    fields: Fields,
    output: Output,
    delivery_id: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="The delivery's id. Without it, give a filter."),
    ] = None,
    rate: Rate = RATE_DEFAULT,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Resend a delivery, or all deliveries of a filter.

    The running dispatcher makes one more attempt each. If it succeeds, the delivery is succeeded; a failure changes
    nothing and starts no schedule. A waiting delivery is sent now and keeps its place in the schedule. With a filter,
    the command shows the number, asks for confirmation and creates a job.

    Examples:
      dispatcher delivery resend wh_01kat9zma1gk18t0mvx8z4q6re
      dispatcher delivery resend --state failed --since 2h --dry-run
    """
    if (delivery_id is None) != bool(fields):
        raise typer.BadParameter(
            "give either an id or a filter such as --state failed.", param_hint="ID"
        )
    if delivery_id is not None:
        _resend_one(context, delivery_id, output)
        return
    job = {"kind": "resend", "filter": dict(fields), "rate_per_second": rate}
    create_job(context, job, dry_run=dry_run, yes=yes, output=output)


@group.command()
@takes(JobOptions)
def replay(
    context: typer.Context,
    fields: Fields,
    output: Output,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="NAME|ID",
            help="The endpoint that gets the events. Default: each delivery's own.",
            autocompletion=complete_names("endpoint"),
        ),
    ] = None,
    rate: Rate = RATE_DEFAULT,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    r"""Replay the deliveries of a filter with the whole schedule.

    This includes deliveries that were cancelled. With --to, another endpoint gets the events that it subscribes to,
    even if it did not exist at the time. The command shows the number, asks for confirmation and creates a job.

    Examples:
      dispatcher delivery replay --state failed --since 2h --dry-run
      dispatcher delivery replay --event-type order.created --since 7d \
        --to ERP --yes
    """
    if not fields:
        raise typer.BadParameter("give a filter such as --state failed.", param_hint="replay")
    target = None if to is None else EndpointName(to)
    job = {"kind": "replay", "filter": dict(fields), "to": target, "rate_per_second": rate}
    create_job(context, job, dry_run=dry_run, yes=yes, output=output)


def _resend_one(context: typer.Context, delivery_id: str, output: Output) -> None:
    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.deliveries import DeliveryOperations

        answer = await DeliveryOperations(session.deployment).resend(session.actor, delivery_id)
        say_object(answer, output=output)
        tell(f"requested; to see the result: dispatcher delivery show {delivery_id}")

    run_step(context, step)


@group.command()
def cancel(context: typer.Context, delivery_id: Id, output: Output, yes: Yes = False) -> None:
    """Cancel a waiting delivery; you can resend it later.

    Examples:
      dispatcher delivery cancel wh_01kat9zma1gk18t0mvx8z4q6re --yes
    """
    confirm(f"Cancel {delivery_id}?", yes=yes)

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.deliveries import DeliveryOperations

        answer = await DeliveryOperations(session.deployment).cancel(session.actor, delivery_id)
        say_object(answer, output=output)

    run_step(context, step)
