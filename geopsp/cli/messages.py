"""Messages and errors in the shell's words: `overwrite=True` is --overwrite there."""

from __future__ import annotations

import ast
import logging
import re
import shlex
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from geopsp.cli.options import ShellOption, is_inverted, shell_value
from geopsp.core.addresses import require_local
from geopsp.core.escape import printable, printable_lines
from geopsp.core.log import STYLES, console, handler, is_main_process
from geopsp.core.text import format_count, format_error
from geopsp.errors import OptionError

ARGUMENT = re.compile(r"`([A-Za-z_]\w*)(?:=([^`]*)|(\(\)))?`")


FUNCTIONS = {
    "assess_map": "geopsp assess", "classify_pixels": "geopsp predict", "draw_sample": "geopsp sample",
    "export_training_data": "geopsp chips", "fit": "geopsp train",
    "prepare_data": "geopsp train", "raster_to_polygons": "geopsp polygonize", "suggest_chips": "geopsp suggest",
}  # fmt: skip
"""Python's functions, in messages as `name()`, and the commands that do the same."""


class Translator:
    """Replaces what is Python's, in backticks, by what is the shell's: arguments by options, functions by commands."""

    def __init__(self, command: click.Command, others: Iterable[click.Command] = ()) -> None:
        """Take the command that runs, and others whose options a message may name."""
        options = [each for one in (*others, command) for each in one.params if isinstance(each, click.Option)]
        self.options = {each.name: each for each in options}
        self.arguments = {
            each.name: each.make_metavar(click.Context(command)) for each in command.params
            if isinstance(each, click.Argument)
        }  # fmt: skip

    def __call__(self, text: str) -> str:
        """Return the text in the shell's words; names that no command has only lose their backticks."""
        return ARGUMENT.sub(self._replace, text)

    def _replace(self, found: re.Match[str]) -> str:
        name, written, is_function = found.groups()
        if is_function:
            return FUNCTIONS.get(name, f"{name}()")
        if written is None and name in self.arguments:  # also where another command has an option of that name
            return self.arguments[name]
        option = self.options.get(name)
        if option is None:
            return found[0].strip("`")
        if written is None:
            return option.opts[0]
        try:
            return _with_value(option, ast.literal_eval(written))
        except (ValueError, SyntaxError):  # a value in words, such as FILE
            return f"{option.opts[0]} {written}"


def _with_value(option: click.Option, value: Any) -> str:
    """Return an option with a value, as one writes it in the shell."""
    flag = option.opts[0]
    entry = option.entry if isinstance(option, ShellOption) else None
    if isinstance(value, bool):
        if value is False and option.secondary_opts:
            return option.secondary_opts[0]
        return flag if value is not (entry is not None and is_inverted(entry)) else f"no {flag}"
    text = str(value) if entry is None else shell_value(entry, value)
    return f"no {flag}" if text is None else f"{flag} {shlex.quote(text)}"


class _Formatter(logging.Formatter):
    def __init__(self, translate: Translator, layout: str | None = None) -> None:
        super().__init__(layout)
        self.translate = translate

    def format(self, record: logging.LogRecord) -> str:
        return self.translate(super().format(record))


class _Once(logging.Filter):
    """Lets each warning pass once."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        text = record.getMessage()
        is_new = text not in self.seen
        self.seen.add(text)
        return is_new


def _unraisable(unraisable: Any) -> None:
    """Show what cannot be raised, but for messages of GDAL that rasterio cannot decode, as those of damaged files."""
    if not isinstance(unraisable.exc_value, UnicodeDecodeError):
        sys.__unraisablehook__(unraisable)


@contextmanager
def shell_messages(translate: Translator, level: int) -> Iterator[None]:
    """Show the library's messages from a level on, in the words of a command, each warning once.

    Python's warnings, in which GDAL may tell names from a file, are shown in one line each.
    """
    logger, once = logging.getLogger("geopsp"), _Once()
    before = logger.level, handler.always, handler.formatter
    plain_format = warnings.formatwarning
    warnings.formatwarning = _format_warning
    logger.setLevel(level)
    handler.always = True
    handler.setFormatter(_Formatter(translate))
    handler.addFilter(once)
    hook, sys.unraisablehook = sys.unraisablehook, _unraisable
    try:
        yield
    finally:
        sys.unraisablehook = hook
        handler.removeFilter(once)
        logger.level, handler.always, handler.formatter = before
        warnings.formatwarning = plain_format


class LogFile(logging.FileHandler):
    """Appends messages to a file, one dated line each."""

    def write(self, text: str) -> None:
        """Append a line that is no message of the library."""
        self.handle(logging.LogRecord("geopsp", logging.ERROR, "", 0, printable(text), None, None))


@contextmanager
def log_to_file(path: Path, translate: Translator) -> Iterator[LogFile]:
    """Append messages to a file, one dated line each, in the words of a command.

    Raises:
        OptionError: if the file cannot be written.
    """
    require_local("log_file", path, "Copy the log afterwards.")
    try:
        writer = LogFile(path, encoding="utf-8")
    except OSError as error:
        raise OptionError(f"`log_file={str(path)!r}` cannot be written: {format_error(error)}.") from None
    writer.setFormatter(_Formatter(translate, "%(asctime)s %(levelname)s %(message)s"))
    writer.addFilter(_Once())
    logger = logging.getLogger("geopsp")
    logger.addHandler(writer)
    try:
        yield writer
    finally:
        logger.removeHandler(writer)
        writer.close()


def _format_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> str:
    return f"{category.__name__}: {printable(str(message))}\n"


def show_summary(texts: Sequence[str], translate: Translator) -> None:
    """Repeat the warnings of a command at its end."""
    if texts and is_main_process():
        lines = [f"{format_count(len(texts), 'warning')}:", *(f"- {translate(text)}" for text in texts)]
        console().print(printable_lines(lines), style=STYLES[logging.WARNING])
