"""Chips: pairs of image and label tiles in the "Classified Tiles" folder of ArcGIS, with an index of our own.

DIR/images/000000.tif   DIR/labels/000000.tif   DIR/map.txt   DIR/stats.txt
DIR/esri_model_definition.emd   DIR/esri_accumulated_stats.json
DIR/chips.parquet       one row a chip: footprint, source, window, valid and labelled share, pixels of each class
DIR/chips.json          what was exported, how, and what was found on the way

"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd

from geopsp.chips.arcgis_write import MAP
from geopsp.chips.chip import Chip
from geopsp.chips.chip_files import check_kind
from geopsp.chips.chip_set import INDEX, MANIFEST, ChipSet, read_folder
from geopsp.chips.export import Export, cut_all, index_of, manifest_header, report_of
from geopsp.chips.labelled_scenes import LabelledScenes
from geopsp.chips.options import CUTTING, AreaRule, Background, ChipFormat, ChipSpec, ExportOptions, changed_options
from geopsp.core.options import describes, from_names, option_fields
from geopsp.core.progress import Progress
from geopsp.errors import ChipError
from geopsp.raster.find_images import Images

logger = logging.getLogger(__name__)


@describes(*CUTTING, ExportOptions)
def export_training_data(
    images: Images,
    labels: str | Path | gpd.GeoDataFrame,
    out: str | Path,
    class_field: str | None = None,
    tile_size: int = 256,
    stride: int | None = None,
    *,
    background: Background = "class",
    all_touched: bool = False,
    priority: Sequence[str] | None = None,
    priority_field: str | None = None,
    where: str | None = None,
    class_mapping: Mapping[Any, Any] | str | Path | None = None,
    buffer: float = 0.0,
    aoi: str | Path | gpd.GeoDataFrame | None = None,
    aoi_rule: AreaRule = "mask",
    bands: Sequence[str | int] | None = None,
    per_image: bool = True,
    order: str = "given",
    cell_size: float | None = None,
    extent: Sequence[float] | None = None,
    rotation_angle: float = 0.0,
    min_labelled: float = 0.0,
    min_valid: float = 0.0,
    skip_empty: bool = False,
    grid: bool = True,
    random_chips: int = 0,
    seed: int = 42,
    chip_format: ChipFormat = "tif",
    append: bool = False,
    overwrite: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> ChipSet:
    """Cut training chips from images and labels into a folder, and return them.

    The folder appears when all chips are written. The same call again does nothing; after a kill it resumes.

    Args:
        images: A raster, a URL, a glob, a folder, a STAC file, {band: file}, or a list of these.
        labels: Vector data (any format that pyogrio reads, `file|layername=layer`, a GeoDataFrame) or a raster of class
            codes.
        out: The folder to write.
        {options}
        progress: Called after each row of chips with the number of chips done and in total.

    Raises:
        InputNotFoundError, RasterError, GridError, BandError, LabelError, OptionError, OutputError: as the input is.
        ChipError: if no chip is left, or the chips to append to are of another kind.
    """
    options = {name: value for name, value in locals().items() if name in option_fields(*CUTTING)}
    from_names(ExportOptions, locals())
    spec, ground = from_names(ChipSpec, options), LabelledScenes.open(images, labels, **options)
    check_kind(chip_format, ground.scenes[0].dtype, len(ground.scenes[0].bands))
    options = changed_options(options) | {"tile_size": tile_size, "seed": seed}
    export = Export(ground, spec, chip_format, _plain(options), workers, progress)
    known = [] if overwrite else _known(Path(out), append=append)
    if export.key in known:
        logger.info(f"{out} holds these chips already: there is nothing to do.")
    elif known and append:
        export.append_to(Path(out))
    else:
        export.run(Path(out), overwrite=overwrite)
    return ChipSet.open(out)


def _known(out: Path, *, append: bool) -> list[str]:
    """The keys of the exports that a folder holds.

    Raises:
        ChipError: if files of it are missing, or it is to be added to and was made by ArcGIS.
    """
    if (out / MANIFEST).exists():
        ChipSet.open(out)
        return [entry.get("key", "") for entry in read_folder(out)[0]["exports"]]
    if append and (out / MAP).exists() and not (out / INDEX).exists():
        raise ChipError(f"{out} was exported by ArcGIS and stays as it is. Export to another folder; train on both.")
    return []


def index_chips(
    ground: LabelledScenes, spec: ChipSpec, *, workers: int | None = None, progress: Progress | None = None
) -> ChipSet:
    """The chips that an export would write, counted but not written.

    Raises:
        RasterError: if pixels cannot be read.
        ChipError: if no chip is left.
    """
    tally = cut_all(ground, spec, _not_written, workers=workers, progress=progress)
    manifest = {**manifest_header(ground, spec, tally), "exports": [{"report": report_of(ground, spec, tally)}]}
    return ChipSet.from_manifest(manifest, index_of(ground, spec, tally))


def _not_written(stem: str, _: Chip) -> tuple[str, str]:
    return stem, stem


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as JSON has them; polygons are known by their stamp instead."""
    given = {name: value for name, value in options.items() if value is not None}
    return {
        name: "a GeoDataFrame" if isinstance(value, gpd.GeoDataFrame) else json.loads(json.dumps(value, default=str))
        for name, value in given.items()
    }
