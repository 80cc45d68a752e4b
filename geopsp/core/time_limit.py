"""How long a query of a file, or the answer of a server, may take."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from geopsp.core.store_variables import gdal_s3_options
from geopsp.errors import OptionError

VARIABLE = "GEOPSP_TIMEOUT"
"""Environment variable with the seconds; the shell's option --timeout sets it."""

QUERY_SECONDS, SERVER_SECONDS, SILENT_SECONDS, CONNECT_SECONDS = 600.0, 120.0, 20.0, 15.0
"""Without it: a query, the answer of a server, its silence, a connection to it."""

HOW_TO_RAISE = f"set the environment variable {VARIABLE} (in the shell, --timeout) to more seconds"
"""For messages."""

_set_here: dict[str, str] = {}
"""GDAL's options that were set here; those that the user set stay."""


def query_seconds() -> float:
    """Return how long a query may take."""
    return _asked() or QUERY_SECONDS


def server_options() -> dict[str, str]:
    """Return GDAL's options for servers."""
    asked = _asked()
    seconds = asked or SERVER_SECONDS
    limits = {
        "GDAL_HTTP_TIMEOUT": seconds,
        "GDAL_HTTP_LOW_SPEED_TIME": min(seconds, SILENT_SECONDS),
        "GDAL_HTTP_CONNECTTIMEOUT": min(seconds, CONNECT_SECONDS),
    }
    options = {name: f"{max(1, round(value))}" for name, value in limits.items()} | {"GDAL_HTTP_LOW_SPEED_LIMIT": "1"}
    return options | ({"GDAL_HTTP_MAX_RETRY": "0"} if asked else {})


def limit_servers() -> None:
    """Set GDAL's options of this process, also of libraries with a GDAL of their own, for files that name a server."""
    options = server_options() | gdal_s3_options()
    for name in set(_set_here) - set(options):
        if os.environ.get(name) == _set_here.pop(name):
            del os.environ[name]
    for name, value in options.items():
        if os.environ.get(name) in {None, _set_here.get(name)} and os.environ.get(name) != value:
            os.environ[name] = _set_here[name] = value


def is_set_by_user(option: str) -> bool:
    """True for an option of GDAL that stands in the environment, and was not set here."""
    return option in os.environ and os.environ[option] != _set_here.get(option)


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Set the seconds for the time of the block; None leaves them as they are."""
    before = os.environ.get(VARIABLE)
    if seconds is not None:
        os.environ[VARIABLE] = f"{seconds:g}"
    try:
        yield
    finally:
        if before is not None:
            os.environ[VARIABLE] = before
        else:
            os.environ.pop(VARIABLE, None)


def _asked() -> float | None:
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise OptionError(f"{VARIABLE} is {text!r}, but must be a positive number of seconds.")
    return seconds
