"""What a command says of its work: lines to read, or with --json one object for scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from geopsp.cli.messages import Translator
from geopsp.core.addresses import shown
from geopsp.core.escape import printable_lines
from geopsp.core.staging import name_addresses

RESULTS = "geopsp.results"
"""In the context of a command: its `Results`."""


@dataclass(slots=True)
class Results:
    """The results of the command that runs."""

    as_json: bool = False
    content: dict[str, Any] = field(default_factory=dict)
    wrote: list[str] = field(default_factory=list)

    def to_json(self, warnings: Sequence[str]) -> dict[str, Any]:
        """Return what --json shows; `warnings` are those of the run."""
        known = [str(each) for each in self.content.get("warnings", ())]
        others = [each for each in warnings if each not in known]
        return {**self.content, "wrote": self.wrote, "warnings": [*known, *others]}


def results() -> Results:
    """Return the results of the command that runs."""
    found = click.get_current_context().meta.setdefault(RESULTS, Results())
    assert isinstance(found, Results)
    return found


def translator(ctx: click.Context) -> Translator:
    """Return what puts texts into the words of a command."""
    group = ctx.parent.command if ctx.parent else None
    return Translator(ctx.command, group.commands.values() if isinstance(group, click.Group) else ())


def say(text: str) -> None:
    """Print a result, of one or several lines, in the words of the command that runs; with --json nothing."""
    say_verbatim(translator(click.get_current_context())(text))


def say_verbatim(text: str) -> None:
    """Print a result as it is, but for control characters; with --json nothing."""
    if not results().as_json:
        click.echo(printable_lines(name_addresses(text).split("\n")))


def show(text: str, content: Mapping[str, Any]) -> None:
    """Print a result in the words of the command that runs, or `record` it with --json."""
    show_verbatim(translator(click.get_current_context())(text), content)


def show_verbatim(text: str, content: Mapping[str, Any]) -> None:
    """Print a result as it is, but for control characters, or `record` it with --json."""
    say_verbatim(text)
    record(content)


def record(content: Mapping[str, Any]) -> None:
    """Make entries part of the object that --json prints."""
    results().content |= content


def wrote(*paths: str | Path) -> None:
    """Say which files or folders were written."""
    for path in map(shown, paths):
        say(f"Wrote {path}")
        results().wrote.append(path)


def print_json(warnings: Sequence[str]) -> None:
    """Print the results as one JSON object, in ASCII."""
    from geopsp.assessment.result_files import without_nan

    click.echo(json.dumps(without_nan(results().to_json(warnings)), indent=1, allow_nan=False))
