"""Places and shapes that many tests use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import shapely
from filelock import FileLock
from hypothesis import settings

REPOSITORY = Path(__file__).parents[1]
SAMPLE = REPOSITORY / "sample_data"
SHARED = REPOSITORY.parent / "shared" / "data"
"""Real imagery and hard files, where they are at hand; they do not belong to the project."""

SOON = 30
"""Seconds that no refusal takes on the slowest machine, and one that first reads or builds all would."""


def slow(*values: object) -> object:
    """A case that `make test-all` alone tries."""
    return pytest.param(*values, marks=pytest.mark.slow)


def examples(count: int) -> int:
    """How many examples of a property are tried: all by `make test-all`, a third by `make test`."""
    return max(5, count // 3) if settings.get_current_profile_name() == "same" else count


def square(left: float, top: float, side: float) -> shapely.Polygon:
    """A square by its upper left corner."""
    return shapely.box(left, top - side, left + side, top)


def once(folder: Path, name: str, make: Callable[[], object]) -> None:
    """Make what lies in the folder, unless a process of this run has made it."""
    done = folder / f".{name}"
    with FileLock(f"{done}.lock"):
        if not done.exists():
            make()
            done.touch()
