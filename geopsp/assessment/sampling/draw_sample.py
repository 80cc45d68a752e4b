"""Draw a probability sample of the pixels of a map, for reference labels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio

from geopsp.assessment.map_classes import map_classes
from geopsp.assessment.sampling.pixel_counts import PixelAreas, PixelCounts, count_pixels
from geopsp.assessment.sampling.pixel_draw import DrawnPixels, draw_ranks, find_blocks, find_pixels
from geopsp.assessment.sampling.sample_file import Sample, write_sample
from geopsp.assessment.sampling.sample_options import OTHERS, Allocation, SampleDesign, SampleOptions
from geopsp.assessment.sampling.sample_plan import SamplePlan, choose_num_blocks, choose_sizes, plan_strata
from geopsp.assessment.sampling.sample_points import sample_points
from geopsp.assessment.sampling.sample_style import sample_style
from geopsp.assessment.sampling.strata_raster import NUM_CODES, StrataRaster
from geopsp.assessment.sampling.zones import read_zones
from geopsp.core.argument_names import did_you_mean
from geopsp.core.jit import compile_ahead
from geopsp.core.legend import ClassInfo
from geopsp.core.lock import output_lock
from geopsp.core.options import check_nodata, describes, from_names, require_path
from geopsp.core.owned_files import require_not_inputs
from geopsp.core.progress import Progress, progress_bar
from geopsp.core.text import format_count
from geopsp.errors import OptionError, RasterError
from geopsp.labels.area import AreaOfInterest
from geopsp.polygons.attributes import legend_for
from geopsp.polygons.class_raster import ClassRaster
from geopsp.polygons.confidence import Confidence
from geopsp.polygons.options import PolygonSettings
from geopsp.raster.open import gdal_env, open_raster
from geopsp.vector.geopackage import check_package_output

if TYPE_CHECKING:
    import geopandas as gpd

logger = logging.getLogger(__name__)

GDAL_CACHE_BYTES = 64 * 2**20
"""GDAL's own cache of blocks; small, as each block is read once in a pass."""


COMPILED = ("geopsp.assessment.sampling.pixel_counts", "geopsp.assessment.sampling.pixel_draw")
"""Modules with compiled functions."""


@describes(SampleOptions)
def draw_sample(
    class_map: str | Path,
    out: str | Path,
    *,
    design: SampleDesign = "stratified",
    size: int | None = None,
    standard_error: float = 0.01,
    expected_accuracy: float | Mapping[str, float] | None = None,
    allocation: Allocation = "minimum",
    minimum_per_class: int | None = None,
    confidence: str | Path | None = None,
    confidence_bins: Sequence[float] | None = None,
    zones: str | Path | gpd.GeoDataFrame | None = None,
    zone_field: str | None = None,
    aoi: str | Path | gpd.GeoDataFrame | None = None,
    exclude_class: Sequence[str | int] | None = None,
    cluster_size: int = 5,
    show_map_class: bool = False,
    nodata: int | str | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> Sample:
    """Draw a probability sample of the pixels of a map, write it as points to be labelled, and return it.

    Each valid pixel has a known chance of being drawn, the inclusion probability, from which `assess_map` estimates
    accuracy and areas. The points are in random order, and their field `reference` is empty. In QGIS the form of the
    layer offers the class names for it, and hides what the map says.

    The map is read twice, strip by strip, and once more before if it is not one of ours, to find its values: memory
    does not grow with its height. The same seed gives the same points, whatever the blocks of the file and the number
    of threads.

    Without `size`, a stratified sample has as many points as equation 13 of Olofsson et al. (2014) says, with the
    shares of the strata and the expected accuracies. A simple one has n = p (1 - p) / s^2, corrected for the finite
    population: n / (1 + (n - 1) / N). A cluster sample has as many blocks: enough even if all pixels of a block are
    alike, more than enough otherwise.

    The blocks of a cluster sample lie on a grid from the first pixel of the map on; those at its right and lower border
    may be smaller. Each block with a valid pixel has the same chance.

    Args:
        class_map: One band of class codes, as for `raster_to_polygons`.
        out: The GeoPackage to write; it ends in .gpkg.
        {options}

    Returns:
        The sample, as `read_sample` reads it from the file.

    Raises:
        OptionError: if an option is out of range, two contradict each other, a class does not exist, or the size does
            not fit the map.
        InputNotFoundError: if there is no such raster or vector file.
        RasterError: if the map is not a complete raster of class codes, or has no valid pixels.
        GridError: if it has no CRS, or the confidence raster lies on another grid.
        LabelError: if zones or area of interest cannot be read, or miss the map.
        OutputError: if `out` exists and `overwrite` is False, it cannot be written, or another run writes to it.

    Source: Olofsson et al. (2014), Good practices for estimating area and assessing accuracy of land change, Remote
        Sensing of Environment 148, sections 3 and 5.
    """
    options = from_names(SampleOptions, locals())
    require_path("class_map", class_map)
    require_path("out", out)
    target = check_sample_output(class_map, out, options)
    compile_ahead(COMPILED)
    nodata_value = check_nodata("nodata", nodata)
    with (
        output_lock(target),
        ClassRaster.open(class_map, nodata=nodata_value) as class_raster,
        progress_bar("Sampling") as progress,
        rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES),
    ):
        class_raster.number_values(asked=nodata_value)
        sample = _draw(class_raster, options, progress)
        qml = sample_style(sample.classes, show_map_class=show_map_class)
        write_sample(sample, target, qml=qml, overwrite=overwrite)
    logger.info(
        f"Drew {format_count(len(sample), 'point')} of {format_count(len(sample.strata), 'stratum', 'strata')} "
        f"({sum(stratum.pixels for stratum in sample.strata):,} pixels) of {sample.map_name}."
    )
    return sample


def check_sample_output(class_map: str | Path, out: str | Path, options: SampleOptions) -> Path:
    """Return the file to write, with links resolved, after checks.

    Raises:
        OptionError, OutputError: as `draw_sample`.
    """
    target = check_package_output(out, overwrite=options.overwrite)
    inputs = [
        each for each in (class_map, options.confidence, options.zones, options.aoi) if isinstance(each, str | Path)
    ]
    require_not_inputs([target], [Path(str(each).partition("|")[0]) for each in inputs])
    return target


def _draw(class_raster: ClassRaster, options: SampleOptions, progress: Progress) -> Sample:
    """Count the pixels of a map, choose sizes, draw ranks and find their pixels."""
    confidence = None if options.confidence is None else Confidence.open(options.confidence, class_raster.grid)
    raster = _strata_raster(class_raster, confidence, options)
    areas = PixelAreas.from_grid(raster.grid)
    block = options.cluster_size if options.design == "cluster" else None
    counts = count_pixels(
        raster, areas, cluster_size=block, on_strip=lambda done, total: progress(done, 2 * total, "counting")
    )
    _tell_left_out(counts, class_raster)
    classes, all_classes = map_classes(class_raster.path, class_raster.values, np.unique(counts.keys % NUM_CODES))
    _check_names(options, all_classes)
    plan = plan_strata(raster, counts, classes, stratified=options.design == "stratified")

    def on_strip(done: int, total: int) -> None:
        progress(total + done, 2 * total, "drawing")

    num_blocks = None
    if block is not None:
        num_blocks = choose_num_blocks(plan, options, int(counts.blocks.sum()))
        plan, drawn = _draw_blocks(raster, counts, plan, num_blocks, options, on_strip)
        probability = np.array([num_blocks / int(counts.blocks.sum())])
    else:
        plan = choose_sizes(plan, options)
        drawn = _draw_pixels(raster, counts, plan, options.seed, on_strip)
        probability = np.array([stratum.sample_size / stratum.pixels for stratum in plan.strata])
    return Sample(
        points=sample_points(raster, drawn, plan, classes, probability, areas, confidence, options.seed),
        strata=plan.strata,
        map_classes=plan.map_classes,
        design=options.design,
        seed=options.seed,
        map_name=Path(class_raster.path).name,
        grid=raster.grid,
        classes=all_classes,
        clusters=None if block is None else int(counts.blocks.sum()),
        sampled_clusters=num_blocks,
        cluster_size=block,
        options=options.to_json(),
    )


def _strata_raster(class_raster: ClassRaster, confidence: Confidence | None, options: SampleOptions) -> StrataRaster:
    """Open what divides the pixels of a map into strata, and what leaves some out."""
    grid, path = class_raster.grid, class_raster.path
    kept = np.ones(256, np.bool_)
    if options.exclude_class is not None:
        legend = legend_for(path, class_raster.values)
        kept = PolygonSettings(drop=list(options.exclude_class)).selected_codes(legend, class_raster.values)
    limits = tuple(options.confidence_bins or ())
    num_bins = len(limits) + 2 if limits else 1
    zones = None if options.zones is None else read_zones(options.zones, options.zone_field, grid, num_bins=num_bins)
    aoi = None if options.aoi is None else AreaOfInterest.read(options.aoi)
    if aoi is not None:
        aoi.require_overlap(grid)
    with gdal_env(path), open_raster(path) as dataset:
        height, width = dataset.block_shapes[0]
    return StrataRaster(class_raster, (height, width), kept, confidence if limits else None, limits, zones, aoi)


def _tell_left_out(counts: PixelCounts, class_raster: ClassRaster) -> None:
    """Say how many valid pixels are not drawn.

    Raises:
        RasterError: if all are.
    """
    drawable = int(counts.pixels.sum())
    left_out = {
        "are of classes in `exclude_class`": counts.num_excluded,
        "lie outside of all zones": counts.num_outside_zones,
        "lie outside of the area of interest": counts.num_outside_aoi,
    }
    total = drawable + sum(left_out.values())
    if not drawable:
        reasons = [f"{number:,} {words}" for words, number in left_out.items() if number]
        raise RasterError(
            f"{class_raster.path} has no pixels that can be drawn: "
            f"{', '.join(reasons) or 'all are nodata'}. Check the map and its nodata value."
        )
    for words, number in left_out.items():
        if number:
            level = logging.WARNING if words.endswith("zones") else logging.INFO
            logger.log(
                level,
                f"{format_count(number, 'pixel')} ({number / total:.1%}) {words}: none is drawn, and the sample does "
                "not stand for them.",
            )


def _check_names(options: SampleOptions, classes: Sequence[ClassInfo]) -> None:
    """Check that the classes of expected accuracies exist.

    Raises:
        OptionError: if one does not.
    """
    names = [info.name for info in classes]
    expected = options.expected_accuracy if isinstance(options.expected_accuracy, Mapping) else {}
    for name in expected:
        if name not in {*names, OTHERS}:
            hint = did_you_mean(name, names)
            raise OptionError(
                f"`expected_accuracy` names the class {name!r}, but the map has {', '.join(names)}.{hint}"
            )


def _draw_pixels(
    raster: StrataRaster, counts: PixelCounts, plan: SamplePlan, seed: int, on_strip: Callable[[int, int], None]
) -> DrawnPixels:
    ranks = [
        draw_ranks(seed, stream, stratum.pixels, stratum.sample_size)
        for stream, stratum in zip(plan.streams, plan.strata, strict=True)
    ]
    return find_pixels(raster, counts, plan.of_key, ranks, on_strip)


def _draw_blocks(
    raster: StrataRaster,
    counts: PixelCounts,
    plan: SamplePlan,
    number: int,
    options: SampleOptions,
    on_strip: Callable[[int, int], None],
) -> tuple[SamplePlan, DrawnPixels]:
    """Return the plan with the number of pixels that the drawn blocks have, and the pixels."""
    ranks = draw_ranks(options.seed, 0, int(counts.blocks.sum()), number)
    drawn = find_blocks(raster, counts, ranks, options.cluster_size, on_strip)
    return plan.sized([len(drawn)]), drawn
