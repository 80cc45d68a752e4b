"""The shell's options, made from the dataclasses of options, and the way back to Python's arguments."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from geopsp.cli.option_values import COMPLETERS, LISTS, PARSERS, Choice
from geopsp.core.options import DRY_RUN_HELP, info_of, option_fields, with_unit

Command = Callable[..., Any]


class ShellOption(click.Option):
    """A click option that knows the field of options that it is made from, and the group that the help shows it in."""

    def __init__(self, *args: Any, entry: Field[Any], group: str, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.entry, self.group = entry, group


def option_group(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return one decorator that adds all options, in their order."""
    return lambda command: reduce(lambda inner, option: option(inner), reversed(options), command)


def options_of(
    *classes: type[Any], only: tuple[str, ...] = (), without: tuple[str, ...] = (), unset: bool = False
) -> Callable[[Command], Command]:
    """Return a decorator that adds the options of dataclasses to a command, under Python's names.

    Args:
        *classes: Dataclasses of options.
        only: Names of the options to add; (): all that the shell has.
        without: Names of options to leave out.
        unset: True gives None for all options that are not given.
    """
    found = option_fields(*classes)
    return option_group(
        *(
            _click_option(entry, found, group=_group(name, classes), unset=unset)
            for name, entry in found.items()
            if name not in without and (not only or name in only) and _info(entry).flag != ""
        )
    )


def take(given: dict[str, Any], *classes: type[Any]) -> dict[str, Any]:
    """Take the options of dataclasses out of a command's, as Python knows them; those at their default are left out."""
    taken = {}
    for name, entry in option_fields(*classes).items():
        if name in given:
            value = _python_value(entry, given.pop(name))
            if value != entry.default and (value is not None or "None" in str(entry.type)):
                taken[name] = value
    return taken


def is_inverted(entry: Field[Any]) -> bool:
    """Return True for a switch that is on unless the shell's flag turns it off."""
    return entry.type == "bool" and entry.default is True


def shell_value(entry: Field[Any], value: Any) -> str | None:
    """Return how the shell writes a value of an option; None if it cannot be written."""
    if value is None:
        return {int: "0", str: "none"}.get(type(entry.default))
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "none"
    return str(value)


def flag_names(entry: Field[Any]) -> list[str]:
    """Return the names of an option in the shell, e.g. ["--tta", "--test-time-augmentation"]; [] if it has none."""
    flag = _info(entry).flag
    return [f"--{entry.name.replace('_', '-')}"] if flag is None else flag.split()


def shell_help(entry: Field[Any], others: Mapping[str, Field[Any]]) -> str:
    """Return the help of an option in the shell's words: flags for other arguments, and "Default" for None."""
    info = _info(entry)
    text = with_unit(info.shell_help or info.help, info.unit)
    if entry.default is None and info.shell_default is None:
        text = text.replace("None: ", "Default: ")
    flags = {name: flag_names(other) for name, other in others.items()}
    return re.sub(r"`([a-z_]+)`", lambda match: (flags.get(match[1]) or [match[1]])[0], text)


def _info(entry: Field[Any]) -> Any:
    info = info_of(entry)
    assert info is not None
    return info


def _group(name: str, classes: tuple[type[Any], ...]) -> str:
    """Return the title of the group of an option: that of the class that has it."""
    cls = next(each for each in classes if name in option_fields(each))
    return TITLES.get(cls.__name__) or re.sub(r"(Options|Settings|Spec|Config)$", "", cls.__name__)


def _click_option(
    entry: Field[Any], others: Mapping[str, Field[Any]], *, group: str, unset: bool
) -> Callable[[Command], Command]:
    info = _info(entry)
    default = entry.default if info.shell_default is None else info.shell_default
    attributes = {"help": shell_help(entry, others), "metavar": info.metavar, "default": None} | _kind(entry)
    if not (unset or attributes.get("is_flag") or attributes.get("callback") or default is None):
        attributes |= {"default": default, "show_default": True}
    elif not unset and attributes.get("is_flag"):
        del attributes["default"]
    if entry.name in COMPLETERS:
        attributes["shell_complete"] = COMPLETERS[entry.name]
    return click.option(*flag_names(entry), entry.name, cls=ShellOption, entry=entry, group=group, **attributes)


def _kind(entry: Field[Any]) -> dict[str, Any]:  # noqa: PLR0911 (a table of types)
    """Return what click must know of the type of an option, by its annotation."""
    info, annotation = _info(entry), str(entry.type)
    kinds = set(annotation.split(" | ")) - {"None"}
    if entry.name in PARSERS:
        return PARSERS[entry.name]
    if kinds == {"bool"}:
        return {} if "/" in (info.flag or "") else {"is_flag": True}
    if info.choices and all(isinstance(choice, str) for choice in info.choices):
        switched_off = ["none"] if "None" in annotation and entry.default is not None else []
        return {"type": Choice([*info.choices, *switched_off])}
    if kinds <= {"int", "float"}:
        return {"type": float if "float" in kinds else int}
    if _is_multiple(entry):
        return {"multiple": True}
    if annotation.startswith(("Sequence[", "tuple[")):
        return LISTS["str" if "str" in annotation else "int"]
    if "Path" in kinds and "gpd.GeoDataFrame" not in kinds and entry.default is None:
        return {"type": click.Path()}
    return {"type": str}


def _is_multiple(entry: Field[Any]) -> bool:
    """Return True for one path or several, which the shell takes by repeating the option."""
    return "Sequence[str | Path" in str(entry.type)


def _python_value(entry: Field[Any], value: Any) -> Any:
    """Return an option as Python knows it: 0 and "none" stand for None where another value is the default."""
    if is_inverted(entry):
        return not value
    if "None" in str(entry.type) and entry.default is not None and str(value).lower() in {"0", "none"}:
        return None
    return (
        list(value) or None
        if isinstance(value, tuple) and entry.default is None and "Path" in str(entry.type)
        else value
    )


TITLES: Mapping[str, str] = {
    "LabelOptions": "Label", "ImageOptions": "Image", "ChipSpec": "Chip", "ExportOptions": "File",
    "ModelOptions": "Network", "PSPNetOptions": "PSPNet", "LossSpec": "Loss", "FitOptions": "Training",
    "RunConfig": "Run", "DataOptions": "Chip and split", "PolygonSettings": "Polygon", "PolygonOptions": "Polygon",
}  # fmt: skip
"""Titles of groups in the help, by the class of options, where they are not its name."""


JSON_TO_STDOUT = Path("-")
"""The file of --json without a file."""


json_option = click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path),
    is_flag=False,
    flag_value=str(JSON_TO_STDOUT),
    metavar="[FILE]",
    help="Print the result as one JSON object instead of text. With FILE (.json): print the text, and write the result "
    "to FILE.",
)


def split_json(args: Sequence[str]) -> list[str]:
    """Return a command line in which --json takes the next word only if that is a file that ends in .json."""
    words = [*args, ""]
    return [
        f"{arg}={JSON_TO_STDOUT}" if arg == "--json" and not next_one.lower().endswith(".json") else arg
        for arg, next_one in pairwise(words)
    ]


dry_run_option = click.option("--dry-run", is_flag=True, help=DRY_RUN_HELP)


def mismatch_option(verb: str) -> Callable[[Command], Command]:
    """Return the option that takes chips with pixels of any size; `verb` says what is done with them."""
    return click.option(
        "--allow-resolution-mismatch",
        is_flag=True,
        help=f"{verb} chips whose pixels are more than 4 times larger or smaller than those of the training, too.",
    )


overwrite_option = click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
