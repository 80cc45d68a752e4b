"""Export chips: pairs of image and label tiles in the "Classified Tiles" folder of ArcGIS, with an index of our own.

DIR/images/000000.tif   DIR/labels/000000.tif   DIR/map.txt   DIR/stats.txt
DIR/esri_model_definition.emd   DIR/esri_accumulated_stats.json
DIR/chips.parquet       the index, one row per chip: footprint, source, window, fractions valid and labelled, pixels by
                        class
DIR/chips.json          the manifest: classes, bands, statistics, and for each export its options and report
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import geopandas as gpd

from geopsp.chips.chip import Chip
from geopsp.chips.chip_files import check_kind
from geopsp.chips.chip_folder import CHIP_FOLDER, MANIFEST, read_folder
from geopsp.chips.chip_set import ChipSet, describe_skipped, is_arcgis_folder
from geopsp.chips.chip_warnings import log_chip_warnings
from geopsp.chips.cutter import cutting_here
from geopsp.chips.export import Export, Start, cut_all, make_index, make_report, manifest_header
from geopsp.chips.labelled_scenes import LabelledScenes, Labels
from geopsp.chips.options import CUTTING, AreaRule, Background, ChipFormat, ChipSpec, ExportOptions, changed_options
from geopsp.cluster.client import opened_client
from geopsp.core.addresses import address_of, local_path, shown
from geopsp.core.options import describes, from_names, option_fields, require_path
from geopsp.core.output import check_output
from geopsp.core.owned_files import require_not_inputs
from geopsp.core.progress import Progress, progress_bar
from geopsp.core.remote_input import fetch_folder
from geopsp.core.remote_output import upload_folder
from geopsp.core.text import format_count
from geopsp.errors import ChipError, OptionError
from geopsp.raster.find_images import Images
from geopsp.raster.geotiff import require_geotiff_crs

logger = logging.getLogger(__name__)


@describes(*CUTTING, ExportOptions)
def export_training_data(
    images: Images,
    labels: Labels,
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
    label_nodata: int | str | None = None,
    mask_classes: Mapping[Any, Any] | str | Path | None = None,
    aoi: str | Path | gpd.GeoDataFrame | None = None,
    aoi_rule: AreaRule = "mask",
    bands: Sequence[str | int] | None = None,
    per_image: bool = True,
    order: str = "given",
    cell_size: float | None = None,
    extent: Sequence[float] | None = None,
    scaled: bool | None = None,
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
    client: Any = None,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> ChipSet:
    """Cut training chips from images and labels into a folder, and return them.

    The folder appears when all chips are written. The same call again does nothing; after a kill it resumes.

    Args:
        images: A raster, a URL, a glob, a folder, a STAC file, {band: file}, or a list of these.
        labels: Vector data (any format that pyogrio reads, `file|layername=layer`, a GeoDataFrame) a raster of class
            codes, or masks: a folder, glob or list of label rasters, each of the image with its name.
        out: The folder to write.
        {options}
        progress: Called after each row of chips with the number of chips done and in total; None: a bar is shown.

    Raises:
        InputNotFoundError, RasterError, GridError, BandError, LabelError, OptionError, OutputError: as the input is.
        ChipError: if no chip is left, or the chips to append to are of another kind.
    """
    given = {name: value for name, value in locals().items() if name in option_fields(*CUTTING, ExportOptions)}
    export, known = _prepare(images, labels, out, given)
    folder = local_path(out)
    if export.key in known:
        logger.info(f"{shown(folder)} already contains these chips: nothing to do.")
        upload_folder(folder, CHIP_FOLDER)  # a run before may have failed in this
        chips = ChipSet.open(folder)
        log_chip_warnings(chips)
        return chips
    with (
        opened_client(client, scheduler) as found,
        nullcontext(progress) if progress else progress_bar("Cutting chips", unit="chips") as live,
    ):
        export = replace(export, progress=live, client=found)
        return _export(export, known, folder, append=append, overwrite=overwrite)


def _export(export: Export, known: Sequence[str], out: Path, *, append: bool, overwrite: bool) -> ChipSet:
    """Write the chips and return them."""
    if known and append:
        export.append_to(out)
        upload_folder(out, CHIP_FOLDER)
    else:
        export.run(out, overwrite=overwrite)
    chips = ChipSet.open(out)
    left_out = describe_skipped(chips.reports[-1])
    logger.info(f"{shown(out)}: {format_count(len(chips), 'chip')}{f'; left out: {left_out}' if left_out else ''}")
    return chips


def plan_chips(
    images: Images, labels: Labels, out: str | Path, *, progress: Progress | None = None, **options: Any
) -> ChipSet:
    """Return the chips that `export_training_data` would write, after its checks, but write nothing.

    Raises:
        GeopspError: as `export_training_data`.
    """
    defaults = {name: entry.default for name, entry in option_fields(*CUTTING, ExportOptions).items()}
    given: dict[str, Any] = {**defaults, **options}
    export, known = _prepare(images, labels, out, given)
    if not (export.key in known or (known and given["append"])):
        check_output(out, overwrite=given["overwrite"], folder=True, kind=CHIP_FOLDER)
        require_not_inputs([local_path(out)], export.inputs.local_files())
    return index_chips(export.inputs, export.spec, workers=given["workers"], progress=progress)


def _prepare(images: Images, labels: Labels, out: str | Path, given: Mapping[str, Any]) -> tuple[Export, list[str]]:
    """Check options and open inputs; return the export, and the keys of those that its folder has already."""
    from_names(ExportOptions, given)
    require_path("out", out)
    is_elsewhere = given["client"] is not None or given["scheduler"] not in {None, "local"}
    if is_elsewhere and address_of(local_path(out)) is not None:
        raise OptionError(
            f"The workers of a cluster cannot write chips to {shown(local_path(out))}. Choose a folder that all "
            "machines share, and copy it; or cut the chips in this process, without `client` and `scheduler`."
        )
    options = {name: given[name] for name in option_fields(*CUTTING)}
    spec, inputs = from_names(ChipSpec, options), LabelledScenes.open(images, labels, **options)
    for scene in inputs.scenes:
        require_geotiff_crs(scene.grid, scene.name)
    check_kind(given["chip_format"], inputs.scenes[0].dtype, len(inputs.scenes[0].bands))
    changed = changed_options(options) | {"tile_size": given["tile_size"], "seed": given["seed"]}
    export = Export(inputs, spec, given["chip_format"], _to_json(changed), given["workers"], progress=None)
    return export, [] if given["overwrite"] else _known(local_path(out), append=given["append"])


def _known(out: Path, *, append: bool) -> list[str]:
    """Return the keys of all exports to a folder; [] if there is no folder.

    Raises:
        ChipError: if files of the folder are missing, or it should be appended to and was exported by ArcGIS.
    """
    fetch_folder(out)
    if (out / MANIFEST).exists():
        ChipSet.open(out)
        return [entry.get("key", "") for entry in read_folder(out)[0]["exports"]]
    if append and is_arcgis_folder(out):
        raise ChipError(
            f"Cannot append to {out}, which ArcGIS exported. Export to another folder, and train on both together."
        )
    return []


def index_chips(
    inputs: LabelledScenes, spec: ChipSpec, *, workers: int | None = None, progress: Progress | None = None
) -> ChipSet:
    """Return the chips that an export would write, without writing them.

    Raises:
        RasterError: if pixels cannot be read.
        ChipError: if no chip is left.
    """
    start: Start = partial(cutting_here, inputs, spec, write=_write_nothing, workers=workers)
    totals = cut_all(inputs, spec, start, progress=progress)
    report = make_report(inputs, spec, totals)
    manifest = {**manifest_header(inputs, spec, totals), "exports": [{"report": report} | inputs.times_entry()]}
    return ChipSet.from_manifest(manifest, make_index(inputs, spec, totals))


def _write_nothing(stem: str, _: Chip, /) -> tuple[str, str]:
    return stem, stem


def _to_json(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options in JSON's types; of a GeoDataFrame only that it is one, as its fingerprint identifies it."""
    given = {name: value for name, value in options.items() if value is not None}
    return {
        name: "a GeoDataFrame" if isinstance(value, gpd.GeoDataFrame) else json.loads(json.dumps(value, default=str))
        for name, value in given.items()
    }
