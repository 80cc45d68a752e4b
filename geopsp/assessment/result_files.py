"""Files of results: JSON, CSV and pages."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from geopsp.core.addresses import OutputPath
from geopsp.core.file_endings import require_ending
from geopsp.core.options import require_path
from geopsp.core.output import atomic_output, check_output
from geopsp.core.owned_files import require_not_inputs


def save_results(path: str | Path, texts: Mapping[str, Callable[[], str]], *, overwrite: bool) -> Path:
    """Write results in the form that the ending of a file asks for, and return its path.

    Args:
        path: The file.
        texts: Makes the content of each form, by ending.
        overwrite: True to replace the file.

    Raises:
        OptionError: if it has another ending.
        OutputError: if it exists and `overwrite` is False, or cannot be written.
    """
    require_path("path", path)
    ending = require_ending(path, *texts)
    with atomic_output(path, overwrite=overwrite) as partial:
        partial.write_text(texts[ending](), encoding="utf-8", newline="")
    return OutputPath(path)


def json_text(content: Any) -> str:
    """Return results as the text of a JSON file."""
    return json.dumps(without_nan(content), indent=1, ensure_ascii=False, allow_nan=False)


def without_nan(value: Any) -> Any:
    """Return a value with None in place of NaN, and numpy's numbers as Python's, all the way down."""
    if isinstance(value, Mapping):
        return {str(key): without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_results(paths: Mapping[str, Path | None], inputs: Sequence[str | Path], *, overwrite: bool) -> list[Path]:
    """Check the files of results that the shell names, by ending, before the work; return those given.

    Raises:
        OptionError: if one has another ending.
        OutputError: if one is an input, exists and `overwrite` is False, or cannot be written.
    """
    for ending, path in paths.items():
        if path is not None:
            require_ending(path, ending)
            check_output(path, overwrite=overwrite)
    found = [path for path in paths.values() if path is not None]
    require_not_inputs(found, [Path(path) for path in inputs])
    return found
