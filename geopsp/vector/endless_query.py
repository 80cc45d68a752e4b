"""Queries and views that may never end: they are tried by SQLite, which can be interrupted, before GDAL runs them."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from geopsp.core.paths import is_url_or_vsi
from geopsp.core.time_limit import HOW_TO_RAISE, query_seconds
from geopsp.errors import LabelError

SQLITE = b"SQLite format 3\0"
"""Beginning of every GeoPackage and SpatiaLite file."""

STEPS = 10_000
"""SQLite's instructions between two looks at the clock."""

MAX_FUNCTIONS = 99
"""Functions of GDAL's that a query may use."""


@contextmanager
def interrupted_when_late(base: sqlite3.Connection, query: str) -> Iterator[None]:
    """Interrupt what SQLite does in the block after the seconds that a query may take.

    Raises:
        LabelError: then; `query` describes it.
    """
    seconds = query_seconds()
    stop = time.monotonic() + seconds
    base.set_progress_handler(lambda: time.monotonic() > stop, STEPS)
    try:
        yield
    except sqlite3.OperationalError as error:
        if time.monotonic() <= stop:
            raise
        raise LabelError(f"{query} does not end within {seconds:g} s. Simplify it, or {HOW_TO_RAISE}.") from error
    finally:
        base.set_progress_handler(None, 0)


def require_views_end(path: str) -> None:
    """Check that all views of a SQLite file can be read in time, as GDAL reads some when it opens the file.

    Raises:
        LabelError: if one cannot.
    """
    with _opened(path) as base:
        if base is not None:
            views = [name for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'view'")]
            for name in views:
                with suppress(sqlite3.Error):
                    _try(base, f"SELECT * FROM {_quoted(name)}", f"The view {name} of {path}")  # noqa: S608


def require_query_ends(path: str, layer: str, where: str) -> None:
    """Check that a condition on a layer of a SQLite file can be evaluated in time; whether it is right, GDAL says.

    Raises:
        LabelError: if it cannot.
    """
    with _opened(path) as base:
        if base is not None:
            query = f"SELECT count(*) FROM {_quoted(layer)} WHERE {where}"  # noqa: S608 (the user's own)
            _try(base, query, f"The query {where!r} of {path}")


@contextmanager
def _opened(path: str) -> Iterator[sqlite3.Connection | None]:
    """Yield a connection that cannot write; None for another file. Errors of SQLite are left to GDAL to tell."""
    base = None
    with suppress(OSError, sqlite3.Error):
        if _is_sqlite(path):
            base = sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)
    if base is None:
        yield None
        return
    with suppress(sqlite3.Error), closing(base):
        base.execute("PRAGMA trusted_schema = ON")  # else views may use no function that stands for one of GDAL
        yield base


def _is_sqlite(path: str) -> bool:
    if is_url_or_vsi(path) or not Path(path).is_file():
        return False
    with Path(path).open("rb") as file:
        return file.read(len(SQLITE)) == SQLITE


def _try(base: sqlite3.Connection, query: str, words: str) -> None:
    with interrupted_when_late(base, words):
        for _ in range(MAX_FUNCTIONS):
            try:
                for _ in base.execute(query):
                    pass
            except sqlite3.OperationalError as error:
                missing = re.fullmatch(r"no such function: (\w+)", str(error))
                if not missing:
                    raise
                base.create_function(missing[1], -1, lambda *_: None)
            else:
                return


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
