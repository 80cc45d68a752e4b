"""Find the installed geopsp, and give it an environment without QGIS's own libraries. Needs no QGIS."""

from __future__ import annotations

import importlib.util
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HOW_TO_SET = "Enter the path in Settings > Options > Processing > Providers > geopsp."

PLACES = ("geopsp", "geopsp.exe", "bin/geopsp", "Scripts/geopsp.exe", "bin/python", "python.exe")
"""Where the program lies in a folder of programs, or in an environment of Python or conda."""

OF_QGIS = (
    "GDAL_DATA", "GDAL_DRIVER_PATH", "GDAL_PYTHON_DRIVER_PATH", "GEOTIFF_CSV", "PROJ_DATA", "PROJ_LIB",
    "PYTHONEXECUTABLE", "PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP",
)  # fmt: skip
"""Variables with which QGIS points to its own GDAL, PROJ and Python, which may be of other versions."""


class ProgramError(Exception):
    """geopsp cannot be called; the message says what to do."""


@dataclass(frozen=True)
class Program:
    """The words that start geopsp, and whether QGIS's own Python runs it."""

    words: tuple[str, ...]
    in_qgis: bool = False

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return the variables that geopsp runs with: those of QGIS, without what would mislead another Python."""
        ours = {"PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1", "GEOPSP_PROGRESS": "json"}
        left_out = () if self.in_qgis else OF_QGIS
        return {name: value for name, value in base.items() if name not in left_out} | ours


def find_program(setting: str) -> Program:
    """Return the geopsp that the user chose, else the one on PATH, else the one in QGIS's own Python.

    Args:
        setting: A program, a Python that has geopsp, or the folder of an environment; "": none is chosen.

    Raises:
        ProgramError: if there is none.
    """
    if setting.strip():
        return _program_at(Path(setting.strip().strip('"')).expanduser())
    if found := shutil.which("geopsp"):
        return Program((found,))
    if importlib.util.find_spec("geopsp"):
        return Program((_own_python(), "-m", "geopsp.cli"), in_qgis=True)
    raise ProgramError(f"geopsp was not found on PATH. Install it. {HOW_TO_SET}")


def _program_at(path: Path) -> Program:
    if path.is_dir():
        found = [path / place for place in PLACES if (path / place).is_file()]
        if not found:
            raise ProgramError(f"There is no geopsp in the folder {path}. {HOW_TO_SET}")
        path = found[0]
    elif not path.is_file():
        raise ProgramError(f"There is no program {path}. {HOW_TO_SET}")
    is_python = path.stem.lower().startswith("python")
    return Program((str(path), "-m", "geopsp.cli") if is_python else (str(path),))


def _own_python() -> str:
    """Return the Python of QGIS; on Windows and macOS `sys.executable` is QGIS itself."""
    places = (Path(sys.exec_prefix) / "python.exe", Path(sys.exec_prefix) / "bin" / "python3")
    return next((str(place) for place in places if place.is_file()), sys.executable)


def split_options(text: str) -> list[str]:
    """Split options as a shell does, but for backslashes, which paths of Windows have.

    Raises:
        ProgramError: if a quotation mark has no partner.
    """
    words = shlex.shlex(text, posix=True)
    words.whitespace_split, words.escape, words.commenters = True, "", ""
    try:
        return list(words)
    except ValueError as error:
        raise ProgramError(f"A quotation mark is not closed: {text}") from error


def command_line(
    program: Program,
    command: str,
    *arguments: str,
    options: Mapping[str, str | bool],
    extra: Sequence[str] = (),
) -> list[str]:
    """Return the words of a command: options as --name=value, so that a value may begin with a minus.

    Args:
        program: From `find_program`.
        command: E.g. "predict".
        *arguments: What follows the options.
        options: Values by name without dashes; True: the name alone; False or "": left out.
        extra: Further options, as words.
    """
    words = [f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items() if value]
    return [*program.words, command, *words, *extra, "--", *arguments]
