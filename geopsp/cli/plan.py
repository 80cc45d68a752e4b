"""--dry-run: what a command would read and write, how long it would take and how large it would be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geopsp.cli.results import record, say
from geopsp.core.addresses import shown
from geopsp.core.text import format_duration

PIXELS_PER_SECOND = 2e7
"""About how fast two cores read a class map and count its classes."""

Input = str | Path | Sequence[str]
"""A file or folder, or several that are read as one, such as images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a command would do."""

    reads: Sequence[Input]
    writes: Sequence[str | Path] = ()
    max_bytes: float | None = None
    """Size of all that is written, at most; None: not known before."""

    seconds: float | None = None
    """None: not known before."""

    notes: Sequence[str] = ()
    """What else is known of the work, one line each."""


def show_plan(plan: Plan) -> None:
    """Print a plan; each input is described as by `geopsp info`.

    Raises:
        GeopspError: if an input is none that geopsp knows.
    """
    from geopsp.inference.disk_space import format_bytes

    reads = [_describe(each) for each in plan.reads]
    size = "" if plan.max_bytes is None else f" (up to {format_bytes(plan.max_bytes)})"
    lines = ["Would read:", *(f"  {line}" for _, line in reads), *plan.notes]
    lines += [f"Would write{size}:", *(f"  {shown(path)}" for path in plan.writes)] if plan.writes else []
    lines += [] if plan.seconds is None else [f"Would take about {format_duration(plan.seconds)}."]
    say("\n".join([*lines, "Nothing was written."]))
    content = {
        "dry_run": True,
        "reads": [{"paths": paths, "description": line} for paths, line in reads],
        "writes": [shown(path) for path in plan.writes],
        "max_bytes": None if plan.max_bytes is None else round(plan.max_bytes),
        "seconds": plan.seconds,
        "notes": list(plan.notes),
    }
    record(content)


def _describe(given: Input) -> tuple[list[str], str]:
    """Return the paths of an input, and the line that describes it."""
    from geopsp.report.describe import describe

    paths = [shown(given) if isinstance(given, Path) else given] if isinstance(given, str | Path) else list(given)
    return paths, str(describe(paths).text).splitlines()[0]


def map_seconds(class_map: str | Path, nodata: Any = None, *, passes: int = 1) -> float:
    """Return about how long it takes to read a class map, so many times.

    Raises:
        GeopspError: if it is no class map.
    """
    from geopsp.core.options import check_nodata
    from geopsp.polygons.class_raster import ClassRaster

    with ClassRaster.open(class_map, nodata=check_nodata("nodata", nodata)) as raster:
        return passes * raster.grid.width * raster.grid.height / PIXELS_PER_SECOND


def file_bytes(*paths: Any) -> int:
    """Return the size of files, and of all files in folders; 0 for what is elsewhere."""
    found = [Path(path) for path in paths]
    files = [each for path in found for each in (path.rglob("*") if path.is_dir() else [path])]
    return sum(each.stat().st_size for each in files if each.is_file())
