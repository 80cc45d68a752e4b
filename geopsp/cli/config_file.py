"""A run as a file: the arguments and options of a command in YAML, under Python's names or the shell's."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import click
import yaml
from click.core import ParameterSource

from geopsp.cli.options import ShellOption, is_inverted
from geopsp.core import object_store
from geopsp.core.addresses import local_path, remote_address, shown
from geopsp.core.argument_names import suggest_names
from geopsp.core.documents import MAX_SETTINGS_BYTES, DocumentError, read_bytes, read_yaml, yaml_lines
from geopsp.core.output import atomic_output, write_text_atomic
from geopsp.core.owned_files import add_to_file_list
from geopsp.core.remote_input import fetch_file, has_record, input_path
from geopsp.core.remote_output import upload_file, upload_folder
from geopsp.core.text import format_error
from geopsp.errors import OptionError

logger = logging.getLogger(__name__)

COMMAND = "command"
"""The entry of a file that says which command it is for."""

NOT_SAVED = {"config", "save_config", "help", "help_all", "quiet", "verbose", "log_file", "dry_run", "as_json"}
"""What says nothing about the work that a command does."""


CONFIG = "geopsp.config"
"""In the context of a command: its `ConfigFile`, if it has one."""


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What a file says of a command."""

    path: Path
    values: dict[str, Any]
    """As click takes them, by the names of click's parameters."""

    keys: dict[str, str]
    """As the file has them, by the names of click's parameters."""

    lines: dict[str, int]
    """By key."""

    def place(self, name: str) -> str:
        """Return where the file sets a parameter: "run.yaml, line 3, epochs"."""
        key = self.keys[name]
        return f"{self.path}, line {self.lines[key]}, {key}"


def read_config(command: click.Command, path: Path) -> ConfigFile:
    """Read what a file says of a command.

    Of a folder, such as a saved model, it is the file NAME.yaml, by the command's name; of an output such as a map, the
    file that `record_run` wrote beside it.

    Raises:
        OptionError: if the file cannot be read, is for another command, or names what the command does not have.
    """
    try:
        path = _find_config(path, f"{command.name}.yaml")
        found = read_yaml(path, max_bytes=MAX_SETTINGS_BYTES)
    except (OSError, DocumentError) as error:
        raise OptionError(f"{path} cannot be read: {format_error(error)}.") from None
    if not isinstance(found, dict):
        raise OptionError(f"{path} holds no names and values such as `epochs: 10`.")
    meant = found.pop(COMMAND, command.name)
    if meant != command.name:
        raise OptionError(f"{path} is for `geopsp {meant}`, not for `geopsp {command.name}`.")
    parameters, lines = _by_name(command), yaml_lines(path)
    config = ConfigFile(path, {}, {}, lines)
    for key, value in found.items():
        name = str(key).replace("-", "_")
        if name not in parameters:
            near = suggest_names(name, parameters)
            hint = f"Did you mean {near[0]}?" if near else f"`geopsp {command.name} --help-all` shows what it takes."
            where = f"{path}, line {lines.get(str(key), 1)}"
            raise OptionError(f"{where}: `geopsp {command.name}` has no option {key!r}. {hint}")
        if value is not None:
            parameter = parameters[name]
            config.keys[str(parameter.name)] = str(key)
            place = config.place(str(parameter.name))
            config.values[str(parameter.name)] = _shell_value(place, parameter, value)
    return config


def _find_config(path: Path, name: str) -> Path:
    """Return the local path of a file of settings: that of a folder, of an output, or the one that is named.

    Raises:
        InputNotFoundError: if a store cannot be read.
    """
    address = remote_address(path)
    if address is None:
        recorded = path / name if path.is_dir() else _beside(path)
        return recorded if path.is_dir() or os.path.isfile(recorded) else path  # noqa: PTH113 (False for a long name)
    recorded_at = (f"{address}/{name}", f"{address}.yaml")
    return input_path(next((each for each in recorded_at if object_store.stat(each) is not None), path))


def set_in_file(ctx: click.Context, name: str | None) -> str | None:
    """Return where the file of --config sets a parameter; None if it does not, or the command line does."""
    config: ConfigFile | None = ctx.meta.get(CONFIG)
    if config is None or name is None or name not in config.keys:
        return None
    return config.place(name) if ctx.get_parameter_source(name) == ParameterSource.DEFAULT_MAP else None


def record_run(ctx: click.Context, out: Path) -> None:
    """Write the run that made an output: into its folder as NAME.yaml, beside a file as FILE.yaml, for `read_config`.

    A run that adds to a folder is NAME-2.yaml, and so on. A file of others is left alone.
    """
    name, text, out = str(ctx.command.name), config_text(ctx), local_path(out)
    path = out / f"{name}.yaml" if out.is_dir() else _beside(out)
    if ctx.params.get("append"):
        others = (out / f"{name}-{number}.yaml" for number in count(2))
        path = next(each for each in chain([path], others) if not each.exists() or _text_of(each) == text)
    fetch_file(path)
    if _text_of(path) == text:
        return
    if os.path.lexists(path) and not _text_of(path).startswith(f"{COMMAND}: {name}\n"):
        logger.warning(f"{path} was not written by `geopsp {name}`, so it is kept, and this run is not recorded.")
        return
    try:
        write_text_atomic(path, text)
        if out.is_dir():
            add_to_file_list(out, path.name)
        if has_record(out):
            upload_folder(out, None)
        else:
            upload_file(path)
    except OSError as error:  # OutputError is one, too; the output itself is complete
        logger.warning(f"{path} cannot be written ({format_error(error)}), so this run is not recorded.")


def _beside(out: Path) -> Path:
    return out.with_name(f"{out.name}.yaml")


def _text_of(path: Path) -> str:
    """Return the text of a small file; "" for anything else."""
    try:
        return read_bytes(path, max_bytes=MAX_SETTINGS_BYTES).decode()
    except (OSError, DocumentError, UnicodeDecodeError):
        return ""


def write_config(ctx: click.Context, path: Path) -> None:
    """Write the arguments and all options of a command to a YAML file, for `read_config`.

    Raises:
        OutputExistsError: if the file exists, unless the command overwrites.
    """
    with atomic_output(path, overwrite=bool(ctx.params.get("overwrite"))) as partial:
        partial.write_text(config_text(ctx), encoding="utf-8")


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


def _shell_value(place: str, parameter: click.Parameter, value: Any) -> Any:
    """Return a value of a file as click takes it: lists are texts with commas, unless the option may be repeated."""
    if isinstance(value, Mapping):
        value = ",".join(f"{name}={each}" for name, each in value.items())
    if isinstance(parameter, click.Option) and parameter.is_flag:
        if not isinstance(value, bool):
            raise OptionError(f"{place}: it is {value!r}, but must be true or false.")
        return value is not _is_inverted(parameter)
    items = list(value) if isinstance(value, list | tuple) else [value]
    texts = [str(each) for each in items]
    if parameter.multiple or parameter.nargs != 1:
        return tuple(texts)
    if value is True and isinstance(parameter, click.Option) and parameter.flag_value is not None:
        return parameter.flag_value  # an option that may stand without a value
    return ",".join(texts) if items else "none"


def _python_value(parameter: click.Parameter, value: Any) -> Any:
    """Return a value of click as a file holds it; None if there is none."""
    if isinstance(value, bool):
        return value is not _is_inverted(parameter)
    if isinstance(value, tuple):
        return [_plain(each) for each in value] or None
    return _plain(value)


def _plain(value: Any) -> Any:
    return shown(value) if isinstance(value, Path) else value
