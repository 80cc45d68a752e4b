"""Scripts that start processes: each imports the script again, so that its calls need a guard."""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path
from types import FrameType, ModuleType

from geopsp.errors import OptionError


def require_main_guard(what: str) -> None:
    """Check that the script that runs is not one that would start itself over and over.

    Args:
        what: What starts processes, e.g. '`scheduler="local"`'.

    Raises:
        OptionError: if the call stands in a script outside of `if __name__ == "__main__":`.
    """
    main = sys.modules["__main__"]
    line = _running_line(main)
    if line is not None and not _is_guarded(Path(str(main.__file__)), line):
        raise OptionError(
            f"{what} starts processes that import {main.__file__} again. Put its calls under `if __name__ == "
            '"__main__":`.'
        )


def _running_line(main: ModuleType) -> int | None:
    """Return the line of a script that is running; None if no script runs that other processes import."""
    spec = getattr(main, "__spec__", None)
    if getattr(main, "__file__", None) is None or (spec is not None and spec.name.endswith("__main__")):
        return None  # a notebook, or `python -m`
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        if frame.f_globals is main.__dict__ and frame.f_code.co_name == "<module>":
            return frame.f_lineno
        frame = frame.f_back
    return None


def _is_guarded(script: Path, line: int) -> bool:
    """Return True if the statement in a line stands under a condition on `__name__`, or if the file is no source."""
    try:
        tree = ast.parse(script.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return True
    for statement in tree.body:
        if statement.lineno <= line <= (statement.end_lineno or line):
            return isinstance(statement, ast.If) and any(
                isinstance(node, ast.Name) and node.id == "__name__" for node in ast.walk(statement.test)
            )
    return True
