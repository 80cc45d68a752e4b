"""What all commands have in common: messages, warnings and their summary, errors in one line, Ctrl-C."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import click

from geopsp.cli.config_file import CONFIG, read_config, record_run, set_in_file, write_config
from geopsp.cli.help_page import GeneralOption, write_examples, write_options
from geopsp.cli.messages import LogFile, log_to_file, shell_messages, show_summary
from geopsp.cli.options import JSON_TO_STDOUT, split_json
from geopsp.cli.results import print_json, results, translator
from geopsp.core.argument_names import suggest_names
from geopsp.core.log import is_main_process
from geopsp.core.output import checks_only
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
    "Take arguments and options from this YAML file, or from what an earlier run wrote: a model, chips, a map. The "
    "command line takes precedence."
)


SAVE_CONFIG_HELP = "Write the arguments and all options of this run to this YAML file, for --config."


JSON_HELP = "Print the result as one JSON object instead of text."


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
        json: bool = True,
        records: bool = False,
        **attributes: Any,
    ) -> None:
        """Take what click takes.

        Args:
            *args: As of click.
            strict: True adds the option --strict.
            stopped: What Ctrl-C leaves, and how to go on.
            examples: Command lines that the help shows.
            json: True adds the option --json, unless the command has one that takes a file.
            records: True writes what repeats the run beside its output, or into the folder of it.
            **attributes: As of click.
        """
        super().__init__(*args, **attributes)
        self.stopped, self.examples, self.records = stopped, tuple(examples), records
        self.params += [GeneralOption(["--strict"], is_flag=True, help=STRICT_HELP)] if strict else []
        has_json = any("--json" in each.opts for each in self.params)
        if json and not has_json:
            self.params += [GeneralOption(["--json", "as_json"], is_flag=True, help=JSON_HELP)]
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
        args = split_json(args) if any(each.name == "json_path" for each in self.params) else args
        args = [f"./{arg}" if arg.startswith("-") and arg not in known and _is_file(arg) else arg for arg in args]
        try:
            return super().parse_args(ctx, args)
        except click.BadParameter as error:
            place = set_in_file(ctx, error.param.name if error.param else None)
            if place is None:
                raise
            raise click.UsageError(f"{place}: {error.message}", ctx) from None
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
        results().as_json = _pop_json(ctx)
        translate = translator(ctx)
        level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
        with shell_messages(translate, level), collect_warnings() as warnings, ExitStack() as stack:
            log: LogFile | None = None
            try:
                if log_file:
                    log = stack.enter_context(log_to_file(log_file, translate))
                if save_config:
                    write_config(ctx, save_config)
                dry = checks_only() if ctx.params.get("dry_run") else nullcontext()
                with dry, warnings_as_errors() if strict else nullcontext(), time_limit(seconds):
                    result = super().invoke(ctx)
                    if self.records and not ctx.params.get("dry_run") and is_main_process():
                        record_run(ctx, Path(ctx.params["out"]))
                show_summary(warnings, translate)
                if results().as_json and is_main_process():
                    print_json([translate(text) for text in warnings])
            except GeopspError as error:
                show_summary(warnings, translate)
                reason = " (--strict takes this warning for an error.)" if isinstance(error, StrictError) else ""
                message = shorten(translate(str(error)), MAX_MESSAGE)
                _end(f"Error: {message}{reason}{_places_in_file(ctx, str(error))}", log)
                ctx.exit(2)
            except KeyboardInterrupt:
                _end(f"Stopped. {self.stopped}".rstrip(), log)
                ctx.exit(INTERRUPTED)
        return result


def _places_in_file(ctx: click.Context, text: str) -> str:
    """Say which of the arguments that a message names a file of --config sets, and where."""
    names = dict.fromkeys(re.findall(r"`([A-Za-z_]\w*)\b[^`]*`", text))
    places = [place for name in names if (place := set_in_file(ctx, name)) is not None]
    return f" (See {'; '.join(places)}.)" if places else ""


def _end(text: str, log: LogFile | None) -> None:
    """Say why a command ends early."""
    click.echo(text, err=True)
    if log:
        log.write(text)


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
        config = read_config(ctx.command, value)
        ctx.meta[CONFIG], ctx.default_map = config, config.values
    except GeopspError as error:
        raise click.UsageError(str(error), ctx) from None


def _pop_json(ctx: click.Context) -> bool:
    """Return whether the result is printed as JSON; the command only sees a file that it is also written to."""
    if ctx.params.get("json_path") == JSON_TO_STDOUT:
        ctx.params["json_path"] = None
        return True
    return bool(ctx.params.pop("as_json", False))


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False
