"""`dispatcher endpoint export` and `apply`: endpoints as a file."""

# ruff: noqa: PLC0415 -- commands import what they need when they run, so that --help loads neither aiohttp nor asyncpg

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli.commands import CommandGroup
from dispatcher.cli.common import Yes, confirm, run_step
from dispatcher.cli.output import Output, cell, say, say_data, tell, warn

if TYPE_CHECKING:
    from dispatcher.admin.resources.declaration import AppliedDeclaration
    from dispatcher.cli.session import Session

_SIGNS = {"create": "+", "update": "~", "delete": "-", "unchanged": "=", "left": " "}


def add_to(group: CommandGroup) -> None:
    """Add these commands to `dispatcher endpoint`."""
    group.command()(export)
    group.command()(apply)


def export(
    context: typer.Context,
    output: Output,
    tenant: Annotated[
        str | None,
        typer.Option(metavar="TENANT", help="Only endpoints of this tenant. Default: all."),
    ] = None,
) -> None:
    """Print the endpoints as a file for `apply`.

    It is TOML, or JSON with --json. It contains no secrets, but headers in full.

    Examples:
      dispatcher endpoint export --tenant default
    """

    async def step(session: "Session") -> None:
        from dispatcher.admin.operations.apply import Configuration
        from dispatcher.cli.declaration import write_toml

        declared = await Configuration(session.deployment).export(session.actor, tenant=tenant)
        endpoints = [one.model_dump(exclude_unset=True) for one in declared]
        if output.is_data:
            say_data({"endpoints": endpoints}, output)
        else:
            say(write_toml(endpoints).removesuffix("\n"))

    run_step(context, step)


def apply(
    context: typer.Context,
    file: Annotated[
        Path, typer.Option("--file", "-f", metavar="FILE", help="The declaration, .toml or .json.")
    ],
    output: Output,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the changes.")] = False,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune",
            help="Delete endpoints that the file does not list, in the tenants that it lists.",
        ),
    ] = False,
    yes: Yes = False,
) -> None:
    """Create, change and delete endpoints as a file declares.

    They are matched by tenant and name; applying a file again changes nothing. An omitted field has its default. A
    secret is a reference: env:NAME, file:PATH (relative to the file), or unsigned. An omitted secret is kept, or
    generated for a new endpoint.

    Examples:
      dispatcher endpoint apply -f endpoints.toml --dry-run
      dispatcher endpoint apply -f endpoints.toml --prune --yes
    """

    async def step(session: "Session") -> None:
        import os

        from dispatcher.admin.operations.apply import Configuration
        from dispatcher.cli.declaration import Resolver, read

        configuration = Configuration(session.deployment)
        declared = read(file)
        resolve = Resolver(file.parent, os.environ)
        if prune and not dry_run and not yes:
            plan = await configuration.plan(
                session.actor,
                declared.endpoints,
                resolve=resolve,
                prune=True,
                problems=declared.problems,
            )
            names = [f"{one.tenant}/{one.name}" for one in plan if one.action == "delete"]
            if names:
                question = f"Delete {', '.join(names)}? Their waiting deliveries are cancelled."
                confirm(question, yes=False)
        answer = await configuration.apply(
            session.actor,
            declared.endpoints,
            resolve=resolve,
            prune=prune,
            dry_run=dry_run,
            problems=declared.problems,
        )
        if output.is_data:
            say_data(answer, output)
        else:
            _say(answer)

    run_step(context, step)


def _say(answer: "AppliedDeclaration") -> None:
    counts: dict[str, int] = {}
    for one in answer.items:
        counts[one.action] = counts.get(one.action, 0) + 1
        if one.action == "unchanged":
            continue
        say(f"{_SIGNS[one.action]} {one.tenant}/{one.name}: {one.action}")
        for field, change in one.changes.items():
            before = "" if one.action == "create" else f"{cell(change['from'])} -> "
            say(f"    {field}: {before}{cell(change['to'])}")
    for warning in answer.warnings:
        warn(warning)
    tell(
        ", ".join(f"{count} {action}" for action, count in counts.items()) or "nothing is declared"
    )
    if answer.dry_run:
        tell("nothing was changed: omit --dry-run to apply the changes")
