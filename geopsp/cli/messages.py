"""Messages and errors in the shell's words: `overwrite=True` is --overwrite there."""

from __future__ import annotations

import ast
import logging
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from geopsp.cli.options import ShellOption, is_inverted, shell_value
from geopsp.core.log import handler

ARGUMENT = re.compile(r"`([A-Za-z_]\w*)(?:=([^`]*))?`")


class Translator:
    """Replaces Python's arguments in backticks, with or without a value, by the options of a command."""

    def __init__(self, command: click.Command) -> None:
        self.options = {each.name: each for each in command.params if isinstance(each, click.Option)}

    def __call__(self, text: str) -> str:
        """Return the text in the shell's words; names that the command does not have only lose their backticks."""
        return ARGUMENT.sub(self._replace, text)

    def _replace(self, found: re.Match[str]) -> str:
        name, written = found[1], found[2]
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
    def __init__(self, translate: Translator) -> None:
        super().__init__()
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


@contextmanager
def shell_messages(translate: Translator, level: int) -> Iterator[None]:
    """Show the library's messages from a level on, in the words of a command, each warning once."""
    logger, once = logging.getLogger("geopsp"), _Once()
    before = logger.level, handler.always, handler.formatter
    logger.setLevel(level)
    handler.always = True
    handler.setFormatter(_Formatter(translate))
    handler.addFilter(once)
    try:
        yield
    finally:
        handler.removeFilter(once)
        logger.level, handler.always, handler.formatter = before
