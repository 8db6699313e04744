"""`dispatcher check`: every problem at once, and the effective settings with their sources."""

import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg
import typer
import uvloop
from pydantic import SecretStr

from dispatcher.cli.migration import connect
from dispatcher.cli.output import Output, cell, painted, say, say_data, table_width
from dispatcher.cli.session import FAILED, USAGE, effective_environment, guarded, readable_settings
from dispatcher.config.catalogue import load_catalogue
from dispatcher.config.profiles import load_profiles
from dispatcher.config.settings import SECTION_TYPES, Settings
from dispatcher.config.settings_reader import load_settings
from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.errors import ConfigurationError, DispatcherError
from dispatcher.core.printable import escape
from dispatcher.core.profile import Profile
from dispatcher.core.sealing import Keyring
from dispatcher.outbound.client import address_policy, descriptors_for, trust_problems
from dispatcher.runtime.clock import SystemClock
from dispatcher.store import migrate
from dispatcher.store.distribution import distribution_problems, is_distributed
from dispatcher.store.encryption_keys import missing_keys, wrong_keys
from dispatcher.store.event_numbers import read_numbers
from dispatcher.store.producers import may_act_as_producer, producer_excess, producer_insert_problem
from dispatcher.store.routing import saved_endpoints
from dispatcher.store.schema import missing_partitions, missing_privileges, strangers
from dispatcher.store.server import lock_room, server_facts
from dispatcher.store.text_indexes import has_extension
from dispatcher.usability import Configuration, find_problem

CLOCK_SECONDS_MAX: Final = 30.0
LOCKS_PER_PARTITION: Final = 5
"""The table and its indexes, on average over the four tables of history."""
VERSIONS: Final = range(15, 19)
MASK: Final = "********"


@dataclass(slots=True)
class Findings:
    """What the check found; one writer, the check itself."""

    settings: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)
    configuration_problems: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    profiles: Mapping[str, Profile] | None = None
    """None: a file could not be read."""
    policy: AddressPolicy | None = None


def check(config: Path | None, output: Output) -> None:
    """Check everything, print the findings, and exit with the worst code."""
    findings = Findings()
    guarded(lambda: uvloop.run(_check(config, findings)))
    _print(findings, output)
    if findings.configuration_problems:
        raise typer.Exit(USAGE)
    if findings.problems:
        raise typer.Exit(FAILED)


async def _check(config: Path | None, findings: Findings) -> None:
    environ = effective_environment(os.environ)
    wrong = findings.configuration_problems
    try:
        settings = load_settings(config, environ)
    except ConfigurationError as error:
        wrong += error.problems
        # The rest is checked with what the environment alone gives, so that no problem hides another.
        settings = readable_settings(environ)
    else:
        findings.settings = _in_force(settings)
    findings.warnings += settings.warnings
    _check_files(settings, findings)
    if not settings.secret_keys and not any("SECRET_KEYS" in problem for problem in wrong):
        wrong.append(
            'DISPATCHER_SECRET_KEYS: required; `echo "k1:$(openssl rand -base64 32)"` makes one'
        )
    if settings.database_url is None:
        if not any(problem.startswith("DISPATCHER_DATABASE_URL") for problem in wrong):
            wrong.append(
                "DISPATCHER_DATABASE_URL: required; postgresql://user:password@host:5432/database"
            )
        return
    await _check_database(settings, "DISPATCHER_DATABASE_URL", settings.database_url, findings)
    if settings.listen_database_url is not None:
        await _check_reach("DISPATCHER_LISTEN_DATABASE_URL", settings.listen_database_url, findings)


def _in_force(settings: Settings) -> list[dict[str, Any]]:
    shown = [
        {
            "key": path,
            "value": getattr(getattr(settings, section), key),
            "source": settings.source_of(path),
        }
        for section, kind in SECTION_TYPES.items()
        for key in kind.model_fields
        if (path := f"{section}.{key}")
    ]
    for line in shown:
        if isinstance(line["value"], tuple):
            line["value"] = [one if isinstance(one, int) else str(one) for one in line["value"]]
    specials = ("DATABASE_URL", "LISTEN_DATABASE_URL", "ADMIN_TOKEN", "SECRET_KEYS")
    for name in specials:
        held = getattr(settings, name.lower())
        value = None if not held else MASK
        if name == "SECRET_KEYS" and held:
            value = ",".join(f"{key.id}:{MASK}" for key in held)
        variable = f"DISPATCHER_{name}"
        shown.append({"key": variable, "value": value, "source": settings.source_of(variable)})
    return shown


def _check_files(settings: Settings, findings: Findings) -> None:
    wrong = findings.configuration_problems
    findings.facts["config_file"] = str(settings.config_path) if settings.config_path else None
    try:
        loaded = load_profiles(settings.directories_for("profiles"))
        findings.profiles = loaded.profiles
        findings.facts["profiles"] = sorted(loaded.profiles)
        findings.warnings += [
            f"profile {name}: replaces the shipped one" for name in loaded.replaced
        ]
    except ConfigurationError as error:
        wrong += error.problems
    try:
        catalogue = load_catalogue(settings.directories_for("catalogue"))
        findings.facts["event_types"] = len(catalogue.types)
        findings.warnings += [
            f"event type {name}: replaces the shipped one" for name in catalogue.replaced
        ]
    except ConfigurationError as error:
        wrong += error.problems
    try:
        policy = address_policy(settings, ())
        findings.policy = policy
        findings.warnings += policy.warnings
    except ConfigurationError as error:
        wrong += error.problems
    wrong += trust_problems(settings)
    descriptors = descriptors_for(settings)
    findings.facts["file_descriptors_max"] = descriptors.limit
    if descriptors.warning is not None:
        findings.warnings.append(
            f"of this shell, which need not be the service's: {descriptors.warning}"
        )


async def _check_reach(variable: str, url: SecretStr, findings: Findings) -> None:
    try:
        connection = await connect(url.get_secret_value())
    except ConfigurationError as error:
        findings.configuration_problems += error.problems
    except (DispatcherError, asyncpg.PostgresError) as error:
        findings.problems.append(f"{variable}: {error}")
    else:
        await connection.close()


async def _check_database(
    settings: Settings, variable: str, url: SecretStr, findings: Findings
) -> None:
    try:
        connection = await connect(url.get_secret_value())
    except ConfigurationError as error:
        findings.configuration_problems += error.problems
        return
    except (DispatcherError, asyncpg.PostgresError) as error:
        findings.problems.append(f"{variable}: {error}")
        return
    try:
        # One transaction, since its settings are its own and a pooler may stand between.
        async with migrate.step(connection):
            await _check_server(connection, settings, findings)
    except asyncpg.PostgresError as error:
        findings.problems.append(f"{variable}: {error}")
    finally:
        await connection.close()


async def _check_server(
    connection: "asyncpg.Connection[asyncpg.Record]", settings: Settings, findings: Findings
) -> None:
    problems = findings.problems
    facts = await server_facts(connection)
    findings.facts["postgres"] = facts.version
    findings.facts["database_user"] = facts.user_name
    if facts.major not in VERSIONS:
        problems.append(f"Postgres is version {facts.major}; 15 to 18 are supported")
    if facts.encoding != "UTF8":
        problems.append(
            f"the database's encoding is {facts.encoding}; make one with ENCODING 'UTF8'"
        )
    if facts.read_only:
        problems.append("the database cannot be written to: it is a standby, or read-only")
    apart = abs((SystemClock.now() - facts.now).total_seconds())
    findings.facts["clock_difference_seconds"] = round(apart, 3)
    if apart > CLOCK_SECONDS_MAX:
        problems.append(
            f"this machine's clock and the database's are {apart:.0f} s apart; receivers refuse signatures"
            " whose time is wrong: set up NTP"
        )
    await _check_schema(connection, settings, findings)


async def _check_schema(
    connection: "asyncpg.Connection[asyncpg.Record]", settings: Settings, findings: Findings
) -> None:
    problems = findings.problems
    try:
        await migrate.require(connection)
        waiting = await migrate.pending(connection)
    except DispatcherError as error:
        problems.append(str(error))
        return
    locks_max, partitions = await lock_room(connection)
    findings.facts["history_partitions"] = partitions
    if partitions * LOCKS_PER_PARTITION > locks_max:
        findings.warnings.append(
            f"history has {partitions} partitions, and the server holds {locks_max} locks: a statement over all of"
            ' history, such as pg_dump or a report, fails with "out of shared memory", and may fail other'
            f" transactions. Raise max_locks_per_transaction by a factor of"
            f" {-(-partitions * LOCKS_PER_PARTITION // locks_max)}."
        )
    findings.facts["schema"] = migrate.known()[-1].name
    if settings.secret_keys:
        keyring = Keyring({key.id: key.key.get_secret_value() for key in settings.secret_keys})
        findings.configuration_problems += await missing_keys(connection, keyring)
        findings.configuration_problems += await wrong_keys(connection, keyring)
    problems += [f"migration {one.name} is pending; run: dispatcher migrate" for one in waiting]
    problems += await _endpoint_problems(connection, settings, findings)
    ahead = settings.retention.partitions_ahead_days
    problems += [
        f"partition of {one.table} for {one.day} is missing; "
        + ("run: dispatcher migrate" if one.days_from_today >= -1 else "its deliveries still wait")
        for one in await missing_partitions(connection, ahead, with_waiting=True)
    ]
    problems += [f"missing privilege: {one}" for one in await missing_privileges(connection)]
    if not waiting:
        problems += await migrate.definition_problems(connection)
        findings.facts["history_distributed"] = await is_distributed(connection)
        problems += await distribution_problems(connection)
        async with connection.transaction():
            numbers = await read_numbers(connection)
        if numbers.is_behind:
            problems.append(f"{numbers.problem} (dispatcher run does it, too)")
    if settings.search.trigram_index and not await has_extension(connection):
        problems.append(
            "search.trigram_index needs the extension pg_trgm; run as the owner of the database:"
            " CREATE EXTENSION pg_trgm"
        )
    findings.warnings += await strangers(connection)
    await _check_producers(connection, findings)
    if await migrate.has_notify(connection) != settings.intake.notify:
        found = "missing" if settings.intake.notify else "there"
        problems.append(
            f"intake.notify is {str(settings.intake.notify).lower()} and the trigger is {found};"
            " run: dispatcher migrate"
        )


async def _endpoint_problems(
    connection: "asyncpg.Connection[asyncpg.Record]", settings: Settings, findings: Findings
) -> list[str]:
    """Return the endpoints that this configuration does not let be sent to."""
    if findings.profiles is None or findings.policy is None:
        return []  # the files are reported; what depends on them cannot be evaluated
    keys = {key.id: key.key.get_secret_value() for key in settings.secret_keys}
    configuration = Configuration(
        profiles=findings.profiles,
        keyring=Keyring(keys) if keys else None,
        allow_http=settings.egress.allow_http,
        allow_ports=findings.policy.allow_ports,
        user_agent="dispatcher",
    )
    found = []
    for row in await saved_endpoints(connection):
        problem = find_problem(row, configuration, SystemClock.now())
        if problem is not None:
            found.append(
                f"endpoint {row.name} ({row.id}): {problem.problem}: {problem.detail};"
                " its deliveries wait until this is fixed"
            )
    return found


async def _check_producers(
    connection: "asyncpg.Connection[asyncpg.Record]", findings: Findings
) -> None:
    lacking = await migrate.producers_problems(connection)
    findings.problems += [f"{one}; or run: dispatcher migrate" for one in lacking]
    findings.warnings += [
        f"role dispatcher_producer has a right that it does not need: {one}"
        for one in await producer_excess(connection)
    ]
    if not await may_act_as_producer(connection):
        user = findings.facts["database_user"]
        findings.warnings.append(
            f"no event was inserted as dispatcher_producer, because {user} may not act as that role:"
            f' GRANT dispatcher_producer TO "{user}"'
        )
    elif problem := await producer_insert_problem(connection):
        findings.problems.append(f"producers cannot insert events: {problem}")


def _print(findings: Findings, output: Output) -> None:
    """Print the problems first, then warnings, facts and settings."""
    if output.is_data:
        everything = {
            "settings": findings.settings,
            **findings.facts,
            "configuration_problems": findings.configuration_problems,
            "problems": findings.problems,
            "warnings": findings.warnings,
        }
        say_data(everything, output)
        return
    problems = [*findings.configuration_problems, *findings.problems]
    say_list("PROBLEM", problems, colour="31")
    say_list("warning", findings.warnings, colour="33")
    count = f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'}"
    say(count if problems else "no problems")
    say()
    facts = {name: cell(value) for name, value in findings.facts.items()}
    settings = {
        line["key"]: cell(line["value"])
        + ("" if line["source"] == "default" else f"  ({line['source']})")
        for line in findings.settings
    }
    size = max(map(len, [*facts, *settings]), default=0)
    for name, text in facts.items():
        say(f"{name.ljust(size)}  {text}")
    if settings:
        say()
        say("The settings; those without a source are defaults:")
    for name, text in settings.items():
        say(f"{name.ljust(size)}  {text}")


def say_list(label: str, texts: Sequence[str], *, colour: str) -> None:
    """Print texts behind a label, wrapped to the terminal."""
    width = table_width()
    for text in texts:
        lines = [text] if width is None else textwrap.wrap(text, max(width - len(label) - 2, 20))
        first, *rest = [escape(line) for line in lines]
        sys.stdout.write(f"{painted(label, colour)}: {first}\n")
        for line in rest:
            sys.stdout.write(f"{'':{len(label) + 2}}{line}\n")
