"""Chips: pairs of image and label tiles in the "Classified Tiles" folder of ArcGIS, with an index of our own.

DIR/images/000000.tif   DIR/labels/000000.tif   DIR/map.txt   DIR/stats.txt
DIR/esri_model_definition.emd   DIR/esri_accumulated_stats.json
DIR/chips.parquet       one row a chip: footprint, source, window, valid and labelled share, pixels of each class
DIR/chips.json          what was exported, how, and what was found on the way
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from geopsp.chipset import INDEX, MANIFEST, VERSION, ChipSet
from geopsp.errors import BandError, ChipError, LabelError, OptionError, OutputError
from geopsp.esri import write_esri_files
from geopsp.grid import Grid, Window
from geopsp.labels import Area, Background, PolygonLabels, RasterLabels, read_labels
from geopsp.legend import IGNORE, Legend
from geopsp.outputs import whole
from geopsp.progress import Progress
from geopsp.scene import Images, Patch, Scene, find_images
from geopsp.stats import BandStats


@dataclass(frozen=True, slots=True)
class ChipSpec:
    """How chips are cut and labelled. Sizes in pixels."""

    class_field: str | None = None
    tile_size: int = 256
    stride: int | None = None
    background: Background = "class"
    all_touched: bool = False
    min_labelled: float = 0.0
    priority: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.tile_size < 16:
            raise OptionError(f"tile_size is {self.tile_size}; needed at least 16 pixels.")
        if self.stride is not None and self.stride < 1:
            raise OptionError(f"stride is {self.stride}; needed at least 1 pixel.")
        if not 0 <= self.min_labelled <= 1:
            raise OptionError(f"min_labelled is {self.min_labelled}; needed a share from 0 to 1.")

    @property
    def step(self) -> int:
        return self.stride or self.tile_size


@dataclass(frozen=True, slots=True, eq=False)
class Chip:
    """One tile of an image with its labels."""

    patch: Patch
    codes: NDArray[np.uint8]
    """(rows, cols) class codes; IGNORE where nothing is known."""

    conflicts: int
    """Labelled pixels on which polygons of several classes lie."""


def chip_windows(grid: Grid, spec: ChipSpec) -> list[Window]:
    """Tiles from the grid's origin; the last of a row or column may overhang. They cover it unless the stride skips."""

    def firsts(length: int) -> range:
        return range(0, max(length - spec.tile_size + min(spec.step, spec.tile_size), 1), spec.step)

    return [
        Window(col, row, spec.tile_size, spec.tile_size) for row in firsts(grid.height) for col in firsts(grid.width)
    ]


def cut_chip(scene: Scene, labels: PolygonLabels | RasterLabels, area: Area | None, window: Window) -> Chip:
    """The pixels of a window and their labels: IGNORE where the image is invalid or outside the area."""
    patch = scene.read(window)
    burned = labels.burn(patch.grid)
    known = patch.valid if area is None else patch.valid & area.inside(patch.grid)
    return Chip(patch, np.where(known, burned.codes, IGNORE).astype(np.uint8), int((burned.contested & known).sum()))


@dataclass(slots=True, eq=False)
class Tally:
    """What was cut so far."""

    legend: Legend
    stats: BandStats
    rows: list[dict[str, Any]] = field(default_factory=list)
    skipped_invalid: int = 0
    skipped_unlabelled: int = 0
    conflicts: int = 0

    def add(self, chip: Chip, name: str, source: str, window: Window) -> None:
        counts = np.bincount(chip.codes.ravel(), minlength=256)
        self.stats = self.stats.merge(BandStats.of(chip.patch.data, chip.patch.valid))
        self.conflicts += chip.conflicts
        self.rows.append({
            "chip": name,
            "source": source,
            "col": window.col,
            "row": window.row,
            "valid": float(chip.patch.valid.mean()),
            "labelled": float((chip.codes != IGNORE).mean()),
            **{f"pixels_{info.code}": int(counts[info.code]) for info in self.legend},
            "crs": chip.patch.grid.crs.to_string(),
            "corners": chip.patch.grid.corners(),
        })  # fmt: skip


def export_training_data(
    images: Images,
    labels: str | Path | gpd.GeoDataFrame,
    out: str | Path,
    class_field: str | None = None,
    tile_size: int = 256,
    stride: int | None = None,
    *,
    background: Background = "class",
    aoi: str | Path | gpd.GeoDataFrame | None = None,
    all_touched: bool = False,
    min_labelled: float = 0.0,
    bands: Sequence[str | int] | None = None,
    priority: Sequence[str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ChipSet:
    """A folder of training chips, cut from each image on its own pixel grid.

    Args:
        images: A raster, a glob, a folder, or a list of these.
        labels: Polygons (any format pyogrio reads, `file|layername=layer`, a GeoDataFrame) or a raster of class codes.
        out: The folder to make. It appears when all chips are written, not before.
        class_field: The attribute that holds the class; None: all polygons are one class.
        tile_size: Side of a chip in pixels.
        stride: Pixels from one chip to the next; None: `tile_size`, so that chips touch; more thins them out.
        background: "class": outside of polygons is class 0, "background"; "ignore": it is unlabelled.
        aoi: Polygons outside of which nothing is labelled.
        all_touched: True burns each pixel that a polygon touches; False those whose centre it covers.
        min_labelled: Chips with a smaller labelled share are left out. Chips without a valid pixel always are.
        bands: Names, or numbers from 1; None: all.
        priority: Class names, the one on top first, for places where polygons overlap; otherwise the smaller is on top.
        overwrite: True replaces a folder that exists.
        progress: Called after each chip with the number done and the number of all.

    Raises:
        InputNotFoundError, RasterError, GridError, BandError, LabelError, OptionError, OutputError: as the input is.
    """
    spec = ChipSpec(
        class_field, tile_size, stride, background, all_touched, min_labelled, tuple(priority) if priority else None
    )
    scenes = _open_scenes(images, bands)
    source = read_labels(
        labels, class_field=class_field, background=background, all_touched=all_touched, priority=priority
    )
    area = Area.read(aoi) if aoi is not None else None
    for part in (source, area):
        if part is not None:
            _require_some_overlap(part, scenes)
    tally = Tally(source.legend, BandStats.none(len(scenes[0].bands)))
    with whole(out, overwrite=overwrite, folder=True, mark=MANIFEST) as folder:
        (folder / "images").mkdir()
        (folder / "labels").mkdir()
        for chip, name, scene, window in _cut_all(scenes, source, area, spec, tally, progress):
            write_chip(folder, name, chip, source.legend)
            tally.add(chip, name, scene.sources[0].path, window)
        if not tally.rows:
            raise ChipError(
                f"No chip is left: {tally.skipped_invalid} have no valid pixel, {tally.skipped_unlabelled} less than "
                f"{min_labelled:.0%} labelled. Lower min_labelled, or check where labels and area lie."
            )
        _write_index(folder, spec, tally, scenes, source)
    return ChipSet.open(out)


def _open_scenes(images: Images, bands: Sequence[str | int] | None) -> list[Scene]:
    """One scene a raster, all with the bands of the first."""
    paths = find_images(images)
    first = Scene.open(paths[0], bands=bands)
    rest = [Scene.open(path, bands=first.bands) for path in paths[1:]]
    for scene in rest:
        if scene.dtype != first.dtype:
            raise BandError(
                f"{scene.sources[0].path} holds {scene.dtype} pixels, {paths[0]} {first.dtype}; needed one type, so "
                "that values mean the same. Convert one of them."
            )
        if len(scene.sources[0].bands) != len(first.sources[0].bands) and bands is None:
            raise BandError(
                f"{scene.sources[0].path} has {len(scene.sources[0].bands)} bands, {paths[0]} has "
                f"{len(first.sources[0].bands)}. Name the bands to use (bands=, --bands)."
            )
    return [first, *rest]


def _require_some_overlap(part: PolygonLabels | RasterLabels | Area, scenes: Sequence[Scene]) -> None:
    """Nothing, if labels or area meet one of the images; else the error of the first."""
    first: LabelError | None = None
    for scene in scenes:
        try:
            part.require_overlap(scene.grid)
        except LabelError as error:
            first = first or error
        else:
            return
    assert first is not None
    raise first


def _cut_all(
    scenes: Sequence[Scene],
    labels: PolygonLabels | RasterLabels,
    area: Area | None,
    spec: ChipSpec,
    tally: Tally,
    progress: Progress | None,
) -> Iterator[tuple[Chip, str, Scene, Window]]:
    """The chips worth keeping, numbered on."""
    plan = [(scene, window) for scene in scenes for window in chip_windows(scene.grid, spec)]
    for done, (scene, window) in enumerate(plan, start=1):
        chip = cut_chip(scene, labels, area, window)
        if not chip.patch.valid.any():
            tally.skipped_invalid += 1
        elif (chip.codes != IGNORE).mean() < spec.min_labelled:
            tally.skipped_unlabelled += 1
        else:
            yield chip, f"{len(tally.rows):06d}.tif", scene, window
        if progress:
            progress(done, len(plan))


def write_chip(folder: Path, name: str, chip: Chip, legend: Legend) -> None:
    """The pair of GeoTIFFs: image with an internal mask where a pixel is invalid, labels with nodata 255.

    Raises:
        OutputError: if the disk is full or the folder gone.
    """
    grid, data, valid = chip.patch.grid, chip.patch.data, chip.patch.valid
    frame = {"driver": "GTiff", "crs": grid.crs, "transform": grid.transform, "width": grid.width}
    frame |= {"height": grid.height, "blockysize": grid.height, "compress": "deflate", "zlevel": 1}
    try:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            image = {**frame, "count": len(data), "dtype": data.dtype, "photometric": "minisblack"}
            image |= {"interleave": "band", "predictor": 3 if data.dtype.kind == "f" else 2}
            with rasterio.open(folder / "images" / name, "w", **image) as dataset:
                dataset.write(data)
                if not valid.all():
                    dataset.write_mask(valid)
            label = {**frame, "count": 1, "dtype": "uint8", "nodata": IGNORE, "photometric": "palette"}
            with rasterio.open(folder / "labels" / name, "w", **label) as dataset:
                dataset.write(chip.codes, 1)
                dataset.write_colormap(1, {info.code: (*info.rgb, 255) for info in legend})
    except RasterioError as error:
        raise OutputError(
            f"The chip {name} cannot be written to {folder.parent} ({error}). Is the disk full?"
        ) from error


def _write_index(
    folder: Path, spec: ChipSpec, tally: Tally, scenes: Sequence[Scene], labels: PolygonLabels | RasterLabels
) -> None:
    """Everything in the folder beside the chips themselves."""
    frame = _index_frame(tally.rows)
    frame.to_parquet(folder / INDEX, write_covering_bbox=True, schema_version="1.1.0")
    first = scenes[0]
    manifest = {
        "version": VERSION,
        "spec": asdict(spec),
        "legend": tally.legend.to_json(),
        "bands": list(first.bands),
        "dtype": first.dtype.name,
        "cell_size": list(first.cell_size),
        "units": first.grid.crs.linear_units if first.grid.crs.is_projected else "degree",
        "statistics": tally.stats.to_json(),
        "sources": [scene.sources[0].path for scene in scenes],
        "report": {
            "chips": len(tally.rows),
            "without_valid_pixel": tally.skipped_invalid,
            "too_little_labelled": tally.skipped_unlabelled,
            "conflict_pixels": tally.conflicts,
            "labels": labels.report(),
        },
    }
    write_esri_files(folder, frame, tally.legend, tally.stats, first.bands, first.dtype.name, spec.tile_size)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _index_frame(rows: Sequence[dict[str, Any]]) -> gpd.GeoDataFrame:
    """The index: footprints in the CRS of the first chip, corners of others reprojected."""
    crs = rows[0]["crs"]
    shapes = gpd.GeoSeries([shapely.Polygon(row["corners"]) for row in rows], crs=crs)
    for other in {row["crs"] for row in rows} - {crs}:
        here = np.array([row["crs"] == other for row in rows])
        shapes[here] = gpd.GeoSeries(shapes[here].to_numpy(), crs=other).to_crs(crs).to_numpy()
    columns = {name: [row[name] for row in rows] for name in rows[0] if name != "corners"}
    return gpd.GeoDataFrame(columns, geometry=shapes, crs=crs)
