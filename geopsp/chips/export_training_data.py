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
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

import geopandas as gpd

from geopsp.chips.chip import Chip
from geopsp.chips.chip_files import Kind, check_kind
from geopsp.chips.chip_set import MANIFEST, ChipSet, is_arcgis_folder, read_folder
from geopsp.chips.export import Export, cut_all, make_index, make_report, manifest_header
from geopsp.chips.labelled_scenes import LabelledScenes
from geopsp.chips.options import ChipOptions, ChipSpec
from geopsp.core.progress import Progress
from geopsp.errors import ChipError, OptionError
from geopsp.raster.find_images import Images

logger = logging.getLogger(__name__)


def export_training_data(
    images: Images,
    labels: str | Path | gpd.GeoDataFrame,
    out: str | Path,
    class_field: str | None = None,
    tile_size: int = 256,
    stride: int | None = None,
    *,
    chip_format: Kind = "tif",
    append: bool = False,
    overwrite: bool = False,
    seed: int = 42,
    workers: int | None = None,
    progress: Progress | None = None,
    **cutting: Unpack[ChipOptions],
) -> ChipSet:
    """A folder of training chips.

    It appears when all chips are written, not before. The same call again does nothing; after a kill it goes on.

    Args:
        images: A raster, a URL, a glob, a folder, a STAC file, {band: file}, or a list of these.
        labels: Vector data (any format pyogrio reads, `file|layername=layer`, a GeoDataFrame) or a raster of codes.
        out: The folder to make.
        class_field: The attribute that holds the class; None: all polygons are one class.
        tile_size: Side of a chip in pixels.
        stride: Pixels from one chip to the next; None: `tile_size`, so that chips touch; more thins them out.
        chip_format: "tif"; "png" or "jpg" where pixel type and bands allow, with lossless labels.
        append: True adds to a folder that exists; what is in it stays as it is.
        overwrite: True replaces a folder that exists.
        seed: Of random chips.
        workers: Threads; None: as many as there are cores.
        progress: Called after each row of chips with the number done and the number of all.
        **cutting: As `Cutting` lists them.

    Raises:
        InputNotFoundError, RasterError, GridError, BandError, LabelError, OptionError, OutputError: as the input is.
        ChipError: if no chip is left, or those to append to are of another kind.
    """
    if append and overwrite:
        raise OptionError("append and overwrite exclude each other. Choose one.")
    options = {**cutting, "class_field": class_field, "tile_size": tile_size, "stride": stride, "seed": seed}
    spec, ground = ChipSpec.of(options), LabelledScenes.open(images, labels, **options)
    check_kind(chip_format, ground.scenes[0].dtype, len(ground.scenes[0].bands))
    export = Export(ground, spec, chip_format, _to_json(options), workers, progress)
    known = [] if overwrite else _known(Path(out), append=append)
    if export.key in known:
        logger.info(f"{out} already contains these chips: nothing to do.")
    elif known and append:
        export.append_to(Path(out))
    else:
        export.run(Path(out), overwrite=overwrite)
    return ChipSet.open(out)


def _known(out: Path, *, append: bool) -> list[str]:
    """Return the keys of all exports to a folder; [] if there is no folder.

    Raises:
        ChipError: if files of the folder are missing, or it should be appended to and was exported by ArcGIS.
    """
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
    totals = cut_all(inputs, spec, _write_nothing, workers=workers, progress=progress)
    report = make_report(inputs, spec, totals)
    manifest = {**manifest_header(inputs, spec, totals), "exports": [{"report": report}]}
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
