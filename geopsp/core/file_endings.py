"""Checks of the endings of file names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from geopsp.core.addresses import ending_of, shown
from geopsp.core.argument_names import did_you_mean
from geopsp.errors import OptionError


def require_ending(path: str | Path, *endings: str, option: str | None = None, usual: Sequence[str] = ()) -> str:
    """Return the ending of a file in lower case.

    Args:
        path: The file.
        endings: Those that it can have.
        option: The option that names it, for the message.
        usual: Those that the message names; default: all.

    Raises:
        OptionError: if it has none of these.
    """
    ending = ending_of(path)
    if ending not in endings:
        found = f"`{option}` is {shown(path)}" if option else f"{shown(path)} ends in {ending or 'nothing'!r}"
        hint = did_you_mean(ending, endings)
        raise OptionError(f"{found}, but must end in {endings_text(usual or endings)}.{hint}")
    return ending


def endings_text(endings: Sequence[str]) -> str:
    """Return endings as text, e.g. ".gpkg, .parquet or .shp"."""
    *others, last = endings
    return f"{', '.join(others)} or {last}" if others else last
