"""The folder of local copies, which stand for addresses in object stores and on web servers; its paths in messages."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path

VARIABLE = "GEOPSP_STAGING"
"""Environment variable with the folder of local copies."""

SCHEMES = ("s3", "gs", "az", "http", "https")
"""Of addresses; the copies of each lie in a folder of its name."""

LOCAL_COPY = "the local copy "
"""What stands in a message before a path that is meant as it is."""


def staging_folder() -> Path:
    """Return the folder of local copies, with links resolved."""
    if named := os.environ.get(VARIABLE):
        return Path(os.path.realpath(named))
    cache = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME")
    return Path(os.path.realpath(cache or Path.home() / ".cache")) / "geopsp" / "staging"


def local_copy(path: Path) -> str:
    """Return the words for a path itself, in messages about this disk; of a local copy it is not the address."""
    return f"{LOCAL_COPY}{path}" if path.is_relative_to(staging_folder()) else str(path)


def name_addresses(text: str) -> str:
    """Return a message that names the addresses in place of their local copies, but for those of `local_copy`."""
    folder = str(staging_folder())
    return _copies_in(folder).sub(r"\1://", text) if folder in text else text


@lru_cache(maxsize=8)
def _copies_in(folder: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!{LOCAL_COPY}){re.escape(folder)}[\\/]({'|'.join(SCHEMES)})[\\/]")
