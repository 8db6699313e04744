"""Commands and groups of commands: their help, their usage errors, and the options that many of them have.

Typer has no public name for the classes below, so `pyproject.toml` limits its version.

* Help is at most 80 columns wide. The description wraps; the lines behind `Examples:` stay as they are.
* A command's line in the list of its group is the first sentence of its description, and is never cut.
* A usage error is one line, `field: problem. Fix.`, and exits with 2.
* A command with a parameter `output` gets the options `-o` and `--json`.
* The module of a `LazyGroup` or `LazyCommand` is imported with its first use, so a command loads its own group only.
"""

import functools
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, NoReturn

import typer
from typer._click.core import Context, Parameter
from typer._click.exceptions import (
    ClickException,
    MissingParameter,
    NoArgsIsHelpError,
    NoSuchOption,
    UsageError,
)
from typer._click.formatting import HelpFormatter
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.main import get_group

from dispatcher.cli.output import Output, fail, tell
from dispatcher.core.similar import did_you_mean, similar_words

EXAMPLES: Final = re.compile(r"^Examples:[ \t]*\n", re.MULTILINE)
_SENTENCE_END: Final = re.compile(r"\.(?=\s|$)")
_METAVARS: Final[Mapping[object, str]] = {str: "TEXT", int: "N", float: "N"}
OutputChoice = Annotated[
    Output | None,
    typer.Option("--output", "-o", metavar="FORMAT", help="wide (more columns), json or yaml."),
]
Json = Annotated[bool, typer.Option("--json", help="The same as -o json.")]


class CommandGroup(typer.Typer):
    """A group of commands; each of its commands is a `Command`."""

    def __init__(self, cls: "type[Group] | None" = None, **settings: Any) -> None:  # noqa: ANN401 -- typer's own
        super().__init__(
            cls=cls or Group,
            no_args_is_help=True,
            pretty_exceptions_enable=False,
            rich_markup_mode=None,
            **settings,
        )

    def command(  # type: ignore[override]  # the other settings are not used
        self, name: str | None = None
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Return a decorator that adds a command; its name is the function's unless it is given."""
        register = super().command(name, cls=Command)

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            register(with_output(function))
            return function

        return decorate


def with_output(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command with the options `-o` and `--json` in place of its parameter `output`, if it has one."""
    signature = inspect.signature(function)
    if "output" not in signature.parameters:
        return function

    @functools.wraps(function)
    def run(
        *arguments: Any,  # noqa: ANN401 -- as typer read them
        output: Output | None,
        as_json: bool,
        **options: Any,  # noqa: ANN401 -- as typer read them
    ) -> None:
        if as_json and output not in {None, Output.JSON}:
            raise typer.BadParameter("conflicts with --json. Give one of the two.", param_hint="-o")
        function(*arguments, output=Output.JSON if as_json else output or Output.TABLE, **options)

    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        *(one for name, one in signature.parameters.items() if name != "output"),
        inspect.Parameter("output", kind, default=None, annotation=OutputChoice),
        inspect.Parameter("as_json", kind, default=False, annotation=Json),
    ]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # typer reads it
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


class _Help:
    """What commands and groups write as their help."""

    params: list[Parameter]
    help: str | None
    short_help: str | None

    def get_short_help_str(self, limit: int = 45) -> str:
        """Return the first sentence of the description, whole."""
        del limit
        text = self.short_help or self.help
        return _SENTENCE_END.split(" ".join(_paragraph(text)), maxsplit=1)[0]

    def format_usage(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the usage line, in which an argument is its name alone."""
        pieces = ["[OPTIONS]"]
        for one in self.params:
            if isinstance(one, TyperArgument):
                name = one.display_name_raw.removesuffix("...") + "..." * (one.nargs != 1)
                pieces.append(name if one.required else f"[{name}]")
        if isinstance(self, TyperGroup):
            pieces.append("COMMAND")
        formatter.write_usage(ctx.command_path, " ".join(pieces))

    def format_help_text(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the description, and the examples as they are."""
        del ctx
        text, *rest = EXAMPLES.split(inspect.cleandoc(self.help or ""), maxsplit=1)
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(text.rstrip())
        if rest:
            with formatter.section("Examples"):
                for line in inspect.cleandoc("\n" + rest[0]).splitlines():
                    if line:
                        formatter.write(f"{'':>{formatter.current_indent}}{line}\n")

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write arguments and options; those that every command has come last."""
        arguments, options = [], []
        for one in self.get_params(ctx):  # type: ignore[attr-defined]  # of the class that has this mixin
            if isinstance(one, TyperArgument):
                arguments.append((one.display_name_raw, one.help or ""))
            elif isinstance(one, TyperOption) and not one.hidden:
                options.append((name_of(one), help_of(one, ctx)))
        if arguments:
            with formatter.section("Arguments"):
                formatter.write_dl(arguments)
        with formatter.section("Options"):
            formatter.write_dl(options)


class Command(_Help, TyperCommand):
    """A command."""


class Group(_Help, TyperGroup):
    """A group of commands, and the whole program."""

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the commands, then the options."""
        self.format_commands(ctx, formatter)
        super().format_options(ctx, formatter)

    def resolve_command(self, ctx: Context, args: list[str]) -> Any:  # noqa: ANN401 -- typer's own
        """Return the command of a name, or raise an error that names similar commands of any group."""
        if args[0].startswith("-") or args[0] in self.commands or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        similar = similar_words(args[0], self.commands) or [
            f"{name} {args[0]}"
            for name, one in self.commands.items()
            if isinstance(one, Group) and args[0] in one.commands
        ]
        raise UsageError(f"{args[0]}: no such command. {did_you_mean(similar)}".rstrip(), ctx)

    def main(  # type: ignore[override]  # the other settings are in `settings`
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        **settings: Any,  # noqa: ANN401 -- typer's own
    ) -> Any:  # noqa: ANN401 -- typer's own
        """Run the program; in `standalone_mode`, which is the default, the process exits with its code."""
        if not settings.pop("standalone_mode", True):
            return super().main(args, prog_name, standalone_mode=False, **settings)
        try:
            code = super().main(args, prog_name, standalone_mode=False, **settings)
        except NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except ClickException as error:
            _refuse(error)
        except typer.Abort:
            tell("aborted")
            sys.exit(1)
        sys.exit(code if isinstance(code, int) else 0)


def _group_of(module: str) -> TyperGroup:
    """Import a module of the command line and return its group."""
    return get_group(importlib.import_module(module).group)


class LazyGroup(Group):
    """The group `group` of a module, which is imported when the group's commands are needed."""

    def __init__(self, name: str, module: str, help_text: str) -> None:
        super().__init__(name=name, help=help_text, no_args_is_help=True, rich_markup_mode=None)
        self._module = module
        del self.commands

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- any attribute
        """Return `commands`, which the class has no value for before its module is imported."""
        if name != "commands":
            raise AttributeError(name)
        self.commands = _group_of(self._module).commands
        return self.commands


class LazyCommand(Command):
    """A command of the group `group` of a module, which is imported when the command is used."""

    def __init__(self, name: str, module: str, short_help: str) -> None:
        super().__init__(name=name, short_help=short_help, rich_markup_mode=None)
        self._module = module
        del self.params, self.callback, self.help

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- any attribute
        """Return what only the module has: `params`, `callback` and `help`."""
        if name not in {"params", "callback", "help"}:
            raise AttributeError(name)
        command = _group_of(self._module).commands[str(self.name)]
        self.params, self.callback, self.help = command.params, command.callback, command.help
        return getattr(self, name)


def _refuse(error: ClickException) -> NoReturn:
    """Print a usage error and exit with its code."""
    fail(_text_of(error))
    context = error.ctx if isinstance(error, UsageError) else None
    if context is not None:
        tell(f"Run `{context.command_path} --help` for its options.")
    sys.exit(error.exit_code)


def _text_of(error: ClickException) -> str:
    """Return a usage error as `field: problem. Fix.`."""
    match error:
        case NoSuchOption():
            shown = [] if error.ctx is None else list(_long_names(error.ctx.command.params))
            similar = similar_words(error.option_name, shown)
            return f"{error.option_name}: no such option. {did_you_mean(similar)}".rstrip()
        case MissingParameter(param=TyperArgument() as argument):
            return f"{argument.display_name_raw}: this argument is required."
        case MissingParameter(param=TyperOption() as option):
            return f"{option.opts[0]}: this option is required."
        case typer.BadParameter(param_hint=str(hint)):
            return f"{hint}: {error.message}"
        case typer.BadParameter(param=TyperOption() as option):
            return f"{option.opts[0]}: {error.message}"
        case typer.BadParameter(param=TyperArgument() as argument):
            return f"{argument.display_name_raw}: {error.message}"
        case _:
            return error.message


def _long_names(parameters: Sequence[Parameter]) -> Iterator[str]:
    """Yield the options as the help shows them."""
    for one in parameters:
        if isinstance(one, TyperOption):
            yield from [name for name in one.opts if name.startswith("--")][:1]


def _paragraph(text: str | None) -> Iterator[str]:
    """Yield the lines of the first paragraph."""
    for line in inspect.cleandoc(text or "").splitlines():
        if not line.strip():
            return
        yield line.strip()


def name_of(option: TyperOption) -> str:
    """Return an option as people type it; a second long name is accepted and not shown."""
    short = [one for one in option.opts if not one.startswith("--")]
    long = [one for one in option.opts if one.startswith("--")][:1]
    name = ", ".join([*short, *long])
    if option.secondary_opts:
        return f"{name}, {option.secondary_opts[0]}"
    if option.is_flag:
        return name
    kind = option.type_descriptor.annotation
    return f"{name} {option.metavar or _METAVARS.get(kind) or 'TEXT'}"


def help_of(option: TyperOption, context: Context) -> str:
    """Return the help of an option, with its default and whether it is required."""
    text = option.help or ""
    default = option.get_default(context, call=False)
    if option.required:
        text += " Required."
    elif isinstance(option.show_default, str):
        text += f" Default: {option.show_default}."
    elif option.show_default and default is not None and not option.is_flag and default != ():
        text += f" Default: {f'{default:g}' if isinstance(default, float) else default}."
    return text
