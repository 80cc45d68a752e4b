"""Compare two class maps: a raster, a table and polygons of change."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geopsp.assessment.change.change_codes import ChangeCodes
from geopsp.assessment.change.change_options import ChangeOptions
from geopsp.assessment.change.change_parts import ChangeJob
from geopsp.assessment.change.change_polygons import COMPILED, write_change_polygons
from geopsp.assessment.change.change_raster import MapPair, Sums
from geopsp.assessment.change.map_change import HECTARE, MapChange
from geopsp.assessment.change.map_on_grid import ConfidenceOnGrid, MapOnGrid, compare_grids
from geopsp.assessment.joint_classes import JointClasses, join_classes, open_class_raster, warn_if_disjoint
from geopsp.assessment.sampling.sample_file import read_sample
from geopsp.core.addresses import OutputPath, local_path
from geopsp.core.file_endings import require_ending
from geopsp.core.jit import compile_ahead
from geopsp.core.lock import output_lock
from geopsp.core.options import check_nodata, describes, from_names, require_path
from geopsp.core.output import atomic_output, check_output
from geopsp.core.owned_files import require_not_inputs
from geopsp.core.progress import progress_bar
from geopsp.core.run_state import key_of
from geopsp.core.text import format_count
from geopsp.errors import GridError
from geopsp.inference.disk_space import OVERVIEW_FACTOR
from geopsp.inference.output_paths import TIFF_ENDINGS
from geopsp.polygons.class_raster import ClassRaster
from geopsp.polygons.ground_metric import GroundMetric
from geopsp.raster.info import raster_fingerprint
from geopsp.raster.legend_io import sidecar_path, write_class_files
from geopsp.vector.formats import ENDINGS
from geopsp.vector.write import check_vector_output

if TYPE_CHECKING:
    from geopsp.assessment.accuracy.map_accuracy import MapAccuracy

logger = logging.getLogger(__name__)

PIXELS_PER_SECOND = 5e6
"""About what two cores do."""

VERSION = 1
"""Part of the key of a run."""


@describes(ChangeOptions, endings=ENDINGS)
def compare_maps(
    map_a: str | Path,
    map_b: str | Path,
    out: str | Path,
    *,
    grid: str = "a",
    class_mapping: Mapping[Any, Any] | str | Path | None = None,
    min_area: float = 0.0,
    polygons: str | Path | None = None,
    confidence_a: str | Path | None = None,
    confidence_b: str | Path | None = None,
    reference: str | Path | None = None,
    confidence_level: float = 0.95,
    nodata: int | str | None = None,
    overwrite: bool = False,
) -> MapChange:
    """Write the change from one class map to another as a class raster, and return its areas.

    Classes are matched by name, in any case; a class of one map alone stays a class of its own. Each class that stays
    and each change is a class of the raster, e.g. "forest (unchanged)" and "forest -> building", so that it is a class
    map like others: `draw_sample()` draws a sample of it, `assess_map()` assesses it, `raster_to_polygons()` takes it.
    Up to 15 classes, codes depend on the classes alone: unchanged ones are 0, 1, ... in the order of the classes of
    the first map, then come the changes by class before and class after. All of them are in the class table, so that
    a reference sample can have changes that the maps missed. With more classes only the transitions that occur are
    numbered, in this order; beyond 255 of them the smallest changes share the class "other changes" (254).
    Where a map has nodata, or shows no ground, the change is nodata (255).

    Areas are on the ellipsoid, in any CRS. The maps are read in parts of 2,048 x 2,048 pixels, so that memory does not
    grow with their size; with `min_area` it takes about 220 bytes per region besides. An interrupted run resumes when
    it is called again in the same way.

    Args:
        map_a: The map before: one band of class codes, as of `raster_to_polygons`.
        map_b: The map after.
        out: The GeoTIFF (COG) to write; polygons end in {endings}.
        {options}

    Raises:
        OptionError: if an option is out of range or would have no effect, or `class_mapping` fits no class.
        InputNotFoundError: if a file does not exist.
        RasterError: if a map is not a raster of class codes.
        GridError: if a map has no CRS, or the maps share no ground.
        LabelError: if a map has no class, or both have too many, or the reference does not fit.
        OutputError: if an output exists and `overwrite` is False, is an input, or cannot be written.
    """
    options = from_names(ChangeOptions, locals())
    for name, path in (("map_a", map_a), ("map_b", map_b), ("out", out)):
        require_path(name, path)
    target = _check_outputs(Path(out), (map_a, map_b), options)
    if options.reference is not None:
        read_sample(options.reference)  # what is no sample is said before the work
    graph = ("polygons.regions.cell_graph", "polygons.regions.region_graph")
    compile_ahead([f"geopsp.{name}" for name in (*COMPILED, *graph)])
    with output_lock(target), ExitStack() as stack:
        job, notes, confidences = _plan(map_a, map_b, target, options, stack)
        job.begin()
        try:
            job.make_parts()
        finally:
            job.clear_if_empty()
        sums, removed = job.sums()
        _require_common_ground(sums, str(map_a), str(map_b), job)
        job.assemble()
        if options.polygons is not None:
            polygons_path = local_path(options.polygons)
            write_change_polygons(
                job.raster_path, polygons_path, job.codes, confidences=confidences, metric=job.pair.metric,
                overwrite=overwrite,
            )  # fmt: skip
        accuracy = _assess(job, options)
        _publish(job, Path(out), target, overwrite=overwrite)
    found = _result(job, sums, removed, (str(map_a), str(map_b)), OutputPath(out), notes, options)
    return replace(found, accuracy=accuracy)


@dataclass(frozen=True, slots=True)
class ChangePlan:
    """What `compare_maps` would do."""

    lines: tuple[str, ...]
    """What is known of the maps, in words."""

    num_bytes: float
    """Of the raster, at most."""

    seconds: float


def plan_change(map_a: str | Path, map_b: str | Path, out: str | Path, options: ChangeOptions) -> ChangePlan:
    """Return what `compare_maps` would do and cost, but write nothing; maps with many classes are read for it.

    Raises:
        GeopspError: as `compare_maps`.
    """
    target = _check_outputs(Path(out), (map_a, map_b), options)
    if options.reference is not None:
        read_sample(options.reference)
    with ExitStack() as stack:
        job, _, _ = _plan(map_a, map_b, target, options, stack)
        grid, names = job.pair.grid, job.pair.classes.names
    pixels = grid.width * grid.height
    line = (
        f"{format_count(pixels, 'pixel')} on the grid of map {options.grid}; "
        f"{format_count(len(names), 'class', 'classes')}: {', '.join(names)}."
    )
    return ChangePlan((line,), pixels * OVERVIEW_FACTOR, pixels / PIXELS_PER_SECOND)


def _check_outputs(out: Path, maps: tuple[str | Path, str | Path], options: ChangeOptions) -> Path:
    """Check the paths of the outputs; return that of the raster with links resolved."""
    require_ending(out, *TIFF_ENDINGS, option="out")
    outputs = [out]
    if options.polygons is not None:
        check_vector_output(options.polygons, overwrite=options.overwrite)
        outputs.append(Path(options.polygons))
    inputs = (*maps, options.confidence_a, options.confidence_b, options.reference)
    require_not_inputs(outputs, [Path(path) for path in inputs if path is not None])
    return check_output(out, overwrite=options.overwrite, companions=() if out.exists() else [sidecar_path(out)])


def _plan(
    map_a: str | Path, map_b: str | Path, out: Path, options: ChangeOptions, stack: ExitStack
) -> tuple[ChangeJob, tuple[str, ...], tuple[ConfidenceOnGrid | None, ConfidenceOnGrid | None]]:
    """Open the maps; return what is to be made, notes, and the confidences of both maps."""
    nodata = check_nodata("nodata", options.nodata)
    raster_a, classes_a = open_class_raster(str(map_a), nodata=nodata)
    raster_b, classes_b = open_class_raster(str(map_b), nodata=nodata)
    for raster in (raster_a, raster_b):
        stack.enter_context(raster)
    ours, theirs = (raster_a, raster_b) if options.grid == "a" else (raster_b, raster_a)
    difference = compare_grids(ours.grid, theirs.grid, str(ours.path), str(theirs.path))
    if difference:
        logger.warning(difference)
    grid, joint = ours.grid, join_classes(classes_a, classes_b, mapping=options.class_mapping)
    warn_if_disjoint(classes_a, classes_b, joint)
    pair = MapPair((MapOnGrid(raster_a, grid), MapOnGrid(raster_b, grid)), joint, grid, GroundMetric.from_grid(grid))
    paths = (options.confidence_a, options.confidence_b)
    opened = tuple(None if path is None else ConfidenceOnGrid.open(path, grid) for path in paths)
    job = ChangeJob(pair, _codes(pair), options.min_area, out, _key((raster_a, raster_b), joint, options))
    return job, (difference,) if difference else (), (opened[0], opened[1])


def _codes(pair: MapPair) -> ChangeCodes:
    """Return the codes of the transitions; the maps are read for it if they have many classes."""
    codes = ChangeCodes.of_classes(pair.classes)
    if codes is None:
        with progress_bar("Counting changes") as progress:
            codes = ChangeCodes.of_areas(pair.classes, pair.tally(progress)[:-1, :-1, 1])
    return codes


def _key(rasters: tuple[ClassRaster, ...], joint: JointClasses, options: ChangeOptions) -> str:
    """Return the key of all that the pixels depend on."""
    maps = [[*raster_fingerprint(str(each.path)), repr(each.grid), each.nodata, str(each.values)] for each in rasters]
    tables = [table.tolist() for table in joint.tables]
    return key_of([VERSION, maps, list(joint.names), list(joint.colors), tables, options.grid, options.min_area])


def _require_common_ground(sums: Sums, map_a: str, map_b: str, job: ChangeJob) -> None:
    if not sums[:-1, :-1, 0].any():
        job.clear()
        raise GridError(
            f"No pixel has a class in both {map_a} and {map_b}: where one shows ground, the other is nodata or lies "
            "elsewhere. Check that both show the same place."
        )


def _assess(job: ChangeJob, options: ChangeOptions) -> MapAccuracy | None:
    """Return what the reference sample tells of the raster, before that is moved to its place."""
    if options.reference is None:
        return None
    from geopsp.assessment.accuracy.assess_map import assess_map

    return assess_map(job.raster_path, options.reference, confidence_level=options.confidence_level)


def _publish(job: ChangeJob, asked: Path, out: Path, *, overwrite: bool) -> None:
    """Move the raster to its place, with names, colours and style beside it; remove the folder."""
    with atomic_output(out, overwrite=overwrite) as partial:
        job.raster_path.replace(partial)
        for path in dict.fromkeys((out, local_path(asked))):  # programs look for them beside a link, too
            write_class_files(path, job.codes.legend())
    job.clear()


def _result(
    job: ChangeJob,
    sums: Sums,
    removed: np.ndarray,
    maps: tuple[str, str],
    out: Path,
    notes: tuple[str, ...],
    options: ChangeOptions,
) -> MapChange:
    names, codes = job.pair.classes.names, job.codes
    count = range(len(names))
    return MapChange(
        *maps,
        out,
        names,
        pixels=sums[:-1, :-1, 0].astype(np.int64),
        hectares=sums[:-1, :-1, 1] / HECTARE,
        codes=codes.table,
        names=tuple(tuple(codes.name_of(i, j) for j in count) for i in count),
        only_a_ha=float(sums[:-1, -1, 1].sum()) / HECTARE,
        only_b_ha=float(sums[-1, :-1, 1].sum()) / HECTARE,
        min_area=options.min_area,
        removed_ha=float(removed[1]) / HECTARE,
        polygons=None if options.polygons is None else OutputPath(options.polygons),
        notes=notes,
        confidence_level=options.confidence_level,
    )
