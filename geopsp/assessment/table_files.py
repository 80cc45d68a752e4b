"""Files of tables: JSON and CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from geopsp.core.output import check_output
from geopsp.core.owned_files import require_not_inputs
from geopsp.errors import OptionError

TABLE_ENDINGS = (".json", ".csv")


def require_ending(path: str | Path, *endings: str) -> str:
    """Return the ending of a file in lower case.

    Raises:
        OptionError: if it is none of these.
    """
    ending = Path(path).suffix.lower()
    if ending not in endings:
        raise OptionError(f"{path} must end in {' or '.join(endings)}.")
    return ending


def check_tables(paths: Sequence[Path | None], inputs: Sequence[str | Path], *, overwrite: bool) -> list[Path]:
    """Check the files of tables that the shell names, those of JSON and of CSV, before the work; return those given.

    Raises:
        OptionError: if one has another ending.
        OutputError: if one is an input, exists and `overwrite` is False, or cannot be written.
    """
    for path, ending in zip(paths, TABLE_ENDINGS, strict=True):
        if path is not None:
            require_ending(path, ending)
            check_output(path, overwrite=overwrite)
    found = [path for path in paths if path is not None]
    require_not_inputs(found, [Path(path) for path in inputs])
    return found
