"""What all commands have in common: messages, warnings and their summary, errors in one line, Ctrl-C."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import click

from geopsp.cli.config_file import read_config, write_config
from geopsp.cli.help_page import GeneralOption, write_examples, write_options
from geopsp.cli.messages import LogFile, Translator, log_to_file, shell_messages, show_summary
from geopsp.core.argument_names import suggest_names
from geopsp.core.escape import printable_lines
from geopsp.core.text import shorten
from geopsp.core.time_limit import QUERY_SECONDS, SERVER_SECONDS, time_limit
from geopsp.core.warnings_log import collect_warnings, warnings_as_errors
from geopsp.errors import GeopspError, StrictError

STRICT_HELP = (
    "Take warnings for errors: stop at the first, with exit status 2. Nothing is written, unless it arises after an "
    "output is complete."
)


TIMEOUT_HELP = (
    f"Seconds that a query of a file, or the answer of a server, may take. Default: {QUERY_SECONDS:g} and "
    f"{SERVER_SECONDS:g}."
)
CONFIG_HELP = (
    "Take arguments and options from this YAML file, or from the folder of a model that `geopsp train` wrote; those on "
    "the command line take precedence."
)


SAVE_CONFIG_HELP = "Write the arguments and all options of this run to this YAML file, for --config."


LOG_FILE_HELP = "Also append the messages, with dates, to this file."


MAX_MESSAGE = 1500
"""Characters of an error; more is a value from a damaged file."""


INTERRUPTED = 130
"""Exit status after Ctrl-C, as of every shell."""


class ShellCommand(click.Command):
    """Sets up messages, repeats the warnings at the end, and shows errors of ours in one line with exit status 2."""

    def __init__(
        self,
        *args: Any,
        strict: bool = False,
        stopped: str = "",
        examples: Sequence[str] = (),
        **attributes: Any,
    ) -> None:
        """Take what click takes.

        Args:
            *args: As of click.
            strict: True adds the option --strict.
            stopped: What Ctrl-C leaves, and how to go on.
            examples: Command lines that the help shows.
            **attributes: As of click.
        """
        super().__init__(*args, **attributes)
        self.stopped, self.examples = stopped, tuple(examples)
        self.params += [GeneralOption(["--strict"], is_flag=True, help=STRICT_HELP)] if strict else []
        self.params += [
            GeneralOption(["--timeout"], type=click.FloatRange(0, min_open=True), metavar="SECONDS", help=TIMEOUT_HELP),
            GeneralOption(["--config"], type=click.Path(path_type=Path), is_eager=True, callback=_use_config,
                          expose_value=False, help=CONFIG_HELP),
            GeneralOption(["--save-config"], type=click.Path(path_type=Path), help=SAVE_CONFIG_HELP),
            GeneralOption(["--log-file"], type=click.Path(path_type=Path), help=LOG_FILE_HELP),
            GeneralOption(["--quiet", "-q"], is_flag=True, help="Show only warnings and errors."),
            GeneralOption(["--verbose", "-v"], is_flag=True, help="Show details for debugging, too."),
            GeneralOption(["--help-all"], is_flag=True, is_eager=True, expose_value=False, callback=_show_all_help,
                          help="Show the help of all options."),
        ]  # fmt: skip

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(self.examples, formatter)
        write_options(self, ctx, formatter, whole=HELP_ALL in ctx.meta)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line; suggest the option that an unknown one means.

        What is no option, but a file, is taken for the file, as where a shell expands * to a name such as -a.tif.
        """
        known = {flag for each in self.params for flag in (*each.opts, *each.secondary_opts)}
        args = [f"./{arg}" if arg.startswith("-") and arg not in known and _is_file(arg) else arg for arg in args]
        ctx.meta[TYPED] = shlex.join(["geopsp", str(ctx.info_name), *args])
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            flags = {str(each.name): each.opts[0] for each in self.params}
            meant = suggest_names(error.option_name.strip("-").replace("-", "_"), flags)
            if not meant:
                raise
            raise click.UsageError(
                f"No such option {error.option_name}. Did you mean {flags[meant[0]]}?", ctx
            ) from None

    def invoke(self, ctx: click.Context) -> Any:
        quiet, verbose = ctx.params.pop("quiet"), ctx.params.pop("verbose")
        strict, seconds = ctx.params.pop("strict", False), ctx.params.pop("timeout")
        save_config, log_file = ctx.params.pop("save_config"), ctx.params.pop("log_file")
        if quiet and verbose:
            raise click.UsageError("--quiet and --verbose exclude each other.", ctx)
        translate = translator(ctx)
        level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
        with shell_messages(translate, level), collect_warnings() as warnings, ExitStack() as stack:
            log: LogFile | None = None
            try:
                if log_file:
                    log = stack.enter_context(log_to_file(log_file, translate))
                if save_config:
                    write_config(ctx, save_config)
                with warnings_as_errors() if strict else nullcontext(), time_limit(seconds):
                    result = super().invoke(ctx)
                show_summary(warnings, translate)
            except GeopspError as error:
                show_summary(warnings, translate)
                reason = " (--strict takes this warning for an error.)" if isinstance(error, StrictError) else ""
                message = shorten(translate(str(error)), MAX_MESSAGE)
                _end(f"Error: {message}{reason}", log)
                ctx.exit(2)
            except KeyboardInterrupt:
                _end(f"Stopped. {self.stopped}".rstrip(), log)
                ctx.exit(INTERRUPTED)
        return result


def _end(text: str, log: LogFile | None) -> None:
    """Say why a command ends early."""
    click.echo(text, err=True)
    if log:
        log.write(text)


TYPED = "geopsp.typed"
"""In the context of a command: the command line."""


HELP_ALL = "geopsp.help_all"
"""In the context of a command: all options are asked for."""


def _show_all_help(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        ctx.meta[HELP_ALL] = True
        click.echo(ctx.get_help())
        ctx.exit()


def _use_config(ctx: click.Context, _: click.Parameter, value: Path | None) -> None:
    """Make what a file says the defaults of a command."""
    if value is None or ctx.resilient_parsing:
        return
    try:
        ctx.default_map = read_config(ctx.command, value)
    except GeopspError as error:
        raise click.UsageError(str(error), ctx) from None


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False


def translator(ctx: click.Context) -> Translator:
    """Return what puts texts into the words of a command."""
    group = ctx.parent.command if ctx.parent else None
    return Translator(ctx.command, group.commands.values() if isinstance(group, click.Group) else ())


def say(text: str) -> None:
    """Print a result, of one or several lines, in the words of the command that runs."""
    say_verbatim(translator(click.get_current_context())(text))


def say_verbatim(text: str) -> None:
    """Print a result as it is, but for control characters."""
    click.echo(printable_lines(text.split("\n")))
