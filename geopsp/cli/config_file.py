"""A run as a file: the arguments and options of a command in YAML, under Python's names or the shell's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import yaml
from click.core import ParameterSource

from geopsp.cli.options import ShellOption, is_inverted
from geopsp.core.argument_names import suggest_names
from geopsp.core.documents import MAX_SETTINGS_BYTES, DocumentError, read_yaml
from geopsp.core.output import check_output, write_text_atomic
from geopsp.core.text import format_error
from geopsp.errors import OptionError

COMMAND = "command"
"""The entry of a file that says which command it is for."""

NOT_SAVED = {"config", "save_config", "help", "help_all", "quiet", "verbose", "log_file", "dry_run"}
"""What says nothing about the work that a command does."""


def read_config(command: click.Command, path: Path) -> dict[str, Any]:
    """Read what a file says of a command, as click takes it, by the names of click's parameters.

    Of a folder, such as a saved model, it is the file NAME.yaml, by the command's name.

    Raises:
        OptionError: if the file cannot be read, is for another command, or names what the command does not have.
    """
    path = path / f"{command.name}.yaml" if path.is_dir() else path
    try:
        found = read_yaml(path, max_bytes=MAX_SETTINGS_BYTES)
    except (OSError, DocumentError) as error:
        raise OptionError(f"{path} cannot be read: {format_error(error)}.") from None
    if not isinstance(found, dict):
        raise OptionError(f"{path} holds no names and values such as `epochs: 10`.")
    meant = found.pop(COMMAND, command.name)
    if meant != command.name:
        raise OptionError(f"{path} is for `geopsp {meant}`, not for `geopsp {command.name}`.")
    parameters = _by_name(command)
    values = {}
    for key, value in found.items():
        name = str(key).replace("-", "_")
        if name not in parameters:
            near = suggest_names(name, parameters)
            hint = f"Did you mean {near[0]}?" if near else f"`geopsp {command.name} --help-all` shows what it takes."
            raise OptionError(f"{path}: `geopsp {command.name}` has no option {key!r}. {hint}")
        if value is not None:
            values[str(parameters[name].name)] = _shell_value(path, str(key), parameters[name], value)
    return values


def write_config(ctx: click.Context, path: Path) -> None:
    """Write the arguments and all options of a command to a YAML file, for `read_config`.

    Raises:
        OutputExistsError: if the file exists, unless the command overwrites.
    """
    check_output(path, overwrite=bool(ctx.params.get("overwrite")))
    write_text_atomic(path, config_text(ctx))


def config_text(ctx: click.Context) -> str:
    """Return the arguments and all options of a command as YAML; those that the user gave stand first."""
    given = {ParameterSource.COMMANDLINE, ParameterSource.DEFAULT_MAP}
    parameters = sorted(ctx.command.params, key=lambda each: ctx.get_parameter_source(str(each.name)) not in given)
    values = {
        _python_name(each): value
        for each in parameters
        if each.name not in NOT_SAVED and (value := _python_value(each, ctx.params.get(str(each.name)))) is not None
    }
    return yaml.safe_dump({COMMAND: ctx.command.name, **values}, sort_keys=False, allow_unicode=True)


def _by_name(command: click.Command) -> dict[str, click.Parameter]:
    """Return the parameters of a command by all their names: Python's, and the flags of the shell."""
    found: dict[str, click.Parameter] = {}
    for each in command.params:
        if each.name not in NOT_SAVED:
            flags = () if isinstance(each, click.Argument) else each.opts
            found |= {flag.lstrip("-").replace("-", "_"): each for flag in flags}
            found[_python_name(each)] = each
    return found


def _python_name(parameter: click.Parameter) -> str:
    return str(parameter.name).removesuffix("_path")


def _is_inverted(parameter: click.Parameter) -> bool:
    return isinstance(parameter, ShellOption) and is_inverted(parameter.entry)


def _shell_value(path: Path, key: str, parameter: click.Parameter, value: Any) -> Any:
    """Return a value of a file as click takes it: lists are texts with commas, unless the option may be repeated."""
    if isinstance(value, Mapping):
        value = ",".join(f"{name}={each}" for name, each in value.items())
    if isinstance(parameter, click.Option) and parameter.is_flag:
        if not isinstance(value, bool):
            raise OptionError(f"{path}: {key!r} is {value!r}, but must be true or false.")
        return value is not _is_inverted(parameter)
    items = list(value) if isinstance(value, list | tuple) else [value]
    texts = [str(each) for each in items]
    if parameter.multiple or parameter.nargs != 1:
        return tuple(texts)
    if value is True and isinstance(parameter, click.Option) and parameter.flag_value is not None:
        return parameter.flag_value  # an option that may stand without a value
    return ",".join(texts) or "none"


def _python_value(parameter: click.Parameter, value: Any) -> Any:
    """Return a value of click as a file holds it; None if there is none."""
    if isinstance(value, bool):
        return value is not _is_inverted(parameter)
    if isinstance(value, tuple):
        return [_plain(each) for each in value] or None
    return _plain(value)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
