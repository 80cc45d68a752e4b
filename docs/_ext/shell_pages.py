"""A Sphinx extension that writes a page for each command of the shell, with its options in the groups of `--help-all`.

The pages are made at each build, from click itself, and are not committed.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import click
from sphinx.application import Sphinx

from geopsp.cli.commands import SECTIONS, main
from geopsp.cli.help_page import GENERAL, MAIN, option_groups

FOLDER = "reference/shell"

SPECIAL = r"([\\*_<>|\[\]{}#$])"
"""Characters that are markup in Markdown."""

INDEX = """\
# The shell

Each page lists all options of a command, in the groups of `geopsp COMMAND --help-all`. What all commands have
in common, such as configuration files, dry runs, logs and exit statuses, is in the guide:
[the shell](../../guide/shell.md).
"""


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.connect("builder-inited", lambda app: write_pages(Path(app.srcdir) / FOLDER))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def write_pages(folder: Path) -> None:
    """Write the pages of all commands, and their index; pages that stay the same are not touched."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {f"{name}.md": command_page(main.commands[name]) for names in SECTIONS.values() for name in names}
    pages["index.md"] = index_page()
    for path in folder.glob("*.md"):
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def index_page() -> str:
    """Return the page that lists the commands in their sections."""
    parts = [INDEX]
    for title, names in SECTIONS.items():
        rows = "".join(
            f"| [`geopsp {name}`]({name}.md) | {markdown(main.commands[name].get_short_help_str(200))} |\n"
            for name in names
        )
        parts.append(f"\n## {title}\n\n| command | what it does |\n|---|---|\n{rows}")
        entries = "\n".join(f"geopsp {name} <{name}>" for name in names)
        parts.append(f"\n:::{{toctree}}\n:hidden:\n\n{entries}\n:::\n")
    return "".join(parts)


def command_page(command: click.Command) -> str:
    """Return the page of a command."""
    ctx = click.Context(command, info_name=f"geopsp {command.name}", max_content_width=100)
    usage = " ".join([ctx.command_path, *command.collect_usage_pieces(ctx)])
    description = markdown(inspect.cleandoc((command.help or "").replace("\b", "")))
    parts = [f"# geopsp {command.name}\n\n{description}\n\n```sh\n{usage}\n```\n"]
    if examples := getattr(command, "examples", ()):
        parts.append("\n## Examples\n\n```sh\n" + "\n".join(examples) + "\n```\n")
    parts.append(f"\n:::{{program}} geopsp {command.name}\n:::\n")
    for title, options in option_groups(command, ctx).items():
        heading = "Options" if title == MAIN else f"{title} options"
        note = "Every command has these.\n\n" if title == GENERAL else ""
        parts.append(f"\n## {heading}\n\n{note}{''.join(option_entry(each, ctx) for each in options)}")
    return "".join(parts)


def option_entry(option: click.Option, ctx: click.Context) -> str:
    """Return the entry of an option, as Sphinx's directive of that name."""
    record = option.get_help_record(ctx)
    assert record is not None
    names, text = record
    return f":::{{option}} {names}\n{markdown(text)}\n:::\n\n"


def markdown(text: str) -> str:
    """Return a text in which nothing but `code` and options, such as --out, is markup."""
    pieces = re.split(r"(`[^`]*`|(?<!\w)--[a-z][a-z0-9-]*)", text)
    return "".join(
        each if each.startswith("`") else f"`{each}`" if each.startswith("--") else re.sub(SPECIAL, r"\\\1", each)
        for each in pieces
    )
