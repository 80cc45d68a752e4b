"""The help of a command: the options that matter first, all options in groups, and examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from geopsp.cli.options import ShellOption
from geopsp.core.text import format_count

MAIN_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "chips": (
        "labels", "out", "class_field", "class_mapping", "background", "aoi", "bands", "cell_size", "tile_size",
        "stride", "append", "overwrite",
    ),
    "train": (
        "labels", "out", "network", "backbone", "preset", "encoder_weights", "pretrained_path", "epochs", "minutes",
        "batch_size", "val_split_pct", "resume", "overwrite",
    ),
    "predict": (
        "out", "polygons", "confidence", "probabilities", "per_image", "extent", "aoi", "test_time_augmentation",
        "min_area", "simplify", "device", "dry_run", "overwrite",
    ),
    "suggest": (
        "out", "number", "labelled", "aoi", "criterion", "max_per_km2", "min_distance", "bands", "device", "overwrite",
    ),
}  # fmt: skip
"""Options that the short help shows, by command; commands that are not here show all of theirs."""

GENERAL = "General"
"""The group of the options that all commands have."""

SHORT_GENERAL = {"as_json", "config", "quiet", "help_all"}
"""Options of all commands that the short help shows, beside --help."""

MAIN = "Main"
"""The group of options that stand first."""


def option_groups(command: click.Command, ctx: click.Context) -> dict[str, list[click.Option]]:
    """Return the options of a command by the title of their group, the main ones first, the general ones last."""
    main = MAIN_OPTIONS.get(str(command.name), ())
    options = [each for each in command.get_params(ctx) if isinstance(each, click.Option) and not each.hidden]

    def title(each: click.Option) -> str:
        if each.name in main or (not main and isinstance(each, ShellOption)):
            return MAIN
        return each.group if isinstance(each, ShellOption) else GENERAL if _is_general(each) else MAIN

    titles = [MAIN, *(each.group for each in options if isinstance(each, ShellOption)), GENERAL]
    found: dict[str, list[click.Option]] = {name: [] for name in dict.fromkeys(titles)}
    for each in options:
        found[title(each)].append(each)
    found[MAIN].sort(key=lambda each: main.index(str(each.name)) if each.name in main else len(main))
    return {name: each for name, each in found.items() if each}


class GeneralOption(click.Option):
    """An option that all commands have."""


def _is_general(option: click.Option) -> bool:
    return isinstance(option, GeneralOption) or "--help" in option.opts


def write_options(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter, *, whole: bool) -> None:
    """Write the options that matter first, or all in their groups, into the help of a command."""
    groups = option_groups(command, ctx)
    shown = groups if whole else _short(groups)
    for title, options in shown.items():
        rows = [row for each in options if (row := each.get_help_record(ctx)) is not None]
        with formatter.section("Options" if title == MAIN else f"{title} options"):
            formatter.write_dl(rows)
    hidden = {title: len(options) - len(shown.get(title, ())) for title, options in groups.items()}
    counts = ", ".join(f"{title} ({number})" for title, number in hidden.items() if number)
    if counts:
        formatter.write_paragraph()
        formatter.write_text(
            f"`{ctx.command_path} --help-all` shows {format_count(sum(hidden.values()), 'further option')}: {counts}."
        )


def _short(groups: dict[str, list[click.Option]]) -> dict[str, list[click.Option]]:
    general = [each for each in groups[GENERAL] if "--help" in each.opts or each.name in SHORT_GENERAL]
    return {MAIN: groups[MAIN], GENERAL: general} if MAIN in groups else {GENERAL: general}


def write_examples(examples: Sequence[str], formatter: click.HelpFormatter) -> None:
    """Write examples, one command line each."""
    if examples:
        with formatter.section("Examples"):
            formatter.write("".join(f"{'':{formatter.current_indent}}{line}\n" for line in examples))
