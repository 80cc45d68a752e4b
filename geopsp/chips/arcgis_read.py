"""Folders of "Classified Tiles" that ArcGIS exported, read as if they were ours.

DIR/map.txt                       one line a chip: image, blank, label
DIR/esri_model_definition.emd     tile size, bands, classes
DIR/esri_accumulated_stats.json   pixels by class, statistics of bands
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window

from geopsp.chips.arcgis_write import MAP, MODE, MODEL, SUMS
from geopsp.core.bands import BandStats
from geopsp.core.grid import Grid
from geopsp.core.legend import BACKGROUND, IGNORE_INDEX, Legend
from geopsp.errors import ChipError
from geopsp.raster.valid_mask import alpha_band, valid_mask

BLANKS = re.compile(r"\s*(?P<image>.+?)\s+(?P<label>labels/.+?)(?:\s+[-+.\d]+)*\s*$")
"""A line of map.txt whose names may hold blanks; behind them are numbers, if anything."""


READERS = 8
"""Threads that read chips; most of their time goes to waiting for the disk."""


def read_esri_folder(folder: Path) -> tuple[dict[str, Any], gpd.GeoDataFrame]:
    """What our chips.json and chips.parquet would say of a folder that ArcGIS exported as "Classified Tiles".

    Label value 0, where nothing was drawn, is the class "background", unless the folder names it otherwise. Column,
    row are -1: they are not known. Nothing is written.

    Raises:
        ChipError: if a file is missing or broken, chips differ in size, bands or type, or it is of another format.
    """
    pairs, (model, sums) = _pairs(folder), (_content(folder / MODEL), _content(folder / SUMS))
    mode = model.get("MetaDataMode") or sums.get("MetaDataMode")
    if mode != MODE:
        raise ChipError(f'{folder} was exported as {mode!r}; needed {MODE!r}. Export it as "Classified Tiles".')
    legend = _legend(folder, model)
    with ThreadPoolExecutor(READERS) as pool:
        chips = list(
            pool.map(_read_pair, [folder / image for image, _ in pairs], [folder / label for _, label in pairs])
        )
    _require_alike(chips)
    if model.get("ImageSpaceUsed") == "PIXEL_SPACE":
        chips = [replace(chip, grid=replace(chip.grid, crs=None)) for chip in chips]
    index = _index(folder, pairs, chips, legend)
    return _manifest(folder, chips, index, legend, (model, sums)), index


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """What the files of one chip say."""

    path: Path
    grid: Grid
    """Its CRS is None where the ground is unknown."""

    bands: tuple[str | None, ...]
    dtype: str
    valid: float
    counts: NDArray[np.int64]
    """(256,) valid pixels by code."""


def _pairs(folder: Path) -> list[tuple[str, str]]:
    """Paths of images and labels, relative to the folder."""
    lines = _text(folder / MAP).replace("\\", "/").splitlines()
    found = []
    for number, line in enumerate(lines, start=1):
        columns = line.split()
        if len(columns) > 1 and not (folder / columns[1]).is_file() and (blanks := BLANKS.match(line)):
            columns = [blanks["image"], blanks["label"]]
        if len(columns) == 1:
            raise ChipError(f"{folder / MAP} names one file only in line {number}: {line!r}; needed image and label.")
        if columns:
            found.append((os.path.normpath(columns[0]), os.path.normpath(columns[1])))
    missing = [path for pair in found for path in pair if not (folder / path).is_file()]
    if missing or not found:
        raise ChipError(
            f"{folder} is half-written: {len(missing)} of the {2 * len(found)} files in {MAP} are missing"
            f"{f', the first is {missing[0]}' if missing else ''}. Export or copy it again."
        )
    return found


def _text(path: Path) -> str:
    """Of UTF-8, 16 or 32, with a byte-order mark or without; else of Latin-1, as older tools write it."""
    content = path.read_bytes()
    try:
        return content.decode(json.detect_encoding(content))
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_text(path))
    except OSError as error:
        raise ChipError(f"{path.parent} has no {path.name}, which ArcGIS writes. Export or copy it again.") from error
    except ValueError as error:
        raise ChipError(f"{path} is broken ({error}); needed JSON. Export or copy it again.") from error
    if not isinstance(content, dict):
        raise ChipError(f"{path} is broken: it holds {type(content).__name__}. Export or copy it again.")
    return content


def _legend(folder: Path, model: Mapping[str, Any]) -> Legend:
    try:
        rows = {int(row["Value"]): row for row in model["Classes"]}
        names = {code: str(row.get("Name") or f"class {code}") for code, row in rows.items()}
        colors = {code: "#" + bytes(row["Color"][:3]).hex() for code, row in rows.items() if row.get("Color")}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ChipError(f"{folder / MODEL} has no usable Classes ({error!r}). Export the folder again.") from error
    wrong = [code for code in names if not 0 <= code < IGNORE_INDEX]
    if wrong or not names:
        raise ChipError(
            f"{folder / MODEL} has {f'the class values {wrong}' if wrong else 'no Classes'}; needed values from 0 to "
            f"{IGNORE_INDEX - 1}. Export the folder with other class values."
        )
    if len(set(names.values())) < len(names):
        raise ChipError(
            f"{folder / MODEL} names classes alike: {', '.join(names.values())}. Rename them and export again."
        )
    return Legend.from_names({0: _unused(BACKGROUND, names)} | names, colors)


def _unused(name: str, names: Mapping[int, str]) -> str:
    """The name of value 0, which the folder does not name: another than those it does."""
    return name if 0 in names or name not in names.values() else f"{name} 0"


def _read_pair(image: Path, label: Path) -> _Pair:
    try:
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="TRUE"):
            with rasterio.open(image) as dataset:
                found, valid = _header(dataset), _valid(dataset)
            with rasterio.open(label) as dataset:
                codes = dataset.read(1)
    except RasterioError as error:
        raise ChipError(f"A chip cannot be read ({image} or {label}: {error}). Export or copy it again.") from error
    if codes.shape != valid.shape:
        raise ChipError(f"{label} is of {codes.shape}, its image of {valid.shape} rows, columns. Export it again.")
    if codes.dtype.kind not in "iu" or codes.min() < 0 or codes.max() > IGNORE_INDEX:
        raise ChipError(
            f"{label} holds {codes.dtype} from {codes.min()} to {codes.max()}; needed class values from 0 to "
            f"{IGNORE_INDEX - 1}. Export it with other class values."
        )
    grid, bands, dtype = found
    counts = np.bincount(codes[valid], minlength=256).astype(np.int64)
    return _Pair(image, grid, bands, dtype, float(valid.mean()), counts)


def _header(dataset: Any) -> tuple[Grid, tuple[str | None, ...], str]:
    crs = None if dataset.transform.is_identity else dataset.crs
    indexes = _indexes(dataset)
    names = tuple(dataset.descriptions[i - 1] for i in indexes)
    return Grid(crs, dataset.transform, dataset.width, dataset.height), names, dataset.dtypes[indexes[0] - 1]


def _indexes(dataset: Any) -> list[int]:
    alpha = alpha_band(dataset)
    return [i for i in dataset.indexes if i != alpha] or list(dataset.indexes)


def _valid(dataset: Any) -> NDArray[np.bool_]:
    """(rows, cols); the pixels are read only where the header leaves a doubt."""
    if dataset.dtypes[0].startswith("float") or any(
        flags != [MaskFlags.all_valid] for flags in dataset.mask_flag_enums
    ):
        indexes = _indexes(dataset)
        return valid_mask(dataset, dataset.read(indexes), indexes, Window(0, 0, dataset.width, dataset.height))
    return np.ones((dataset.height, dataset.width), bool)


def _require_alike(chips: Sequence[_Pair]) -> None:
    first = chips[0]
    for chip in chips:
        for what, ours, theirs in (
            ("rows and columns", (first.grid.height, first.grid.width), (chip.grid.height, chip.grid.width)),
            ("bands", len(first.bands), len(chip.bands)),
            ("pixel type", first.dtype, chip.dtype),
        ):
            if ours != theirs:
                raise ChipError(
                    f"{first.path} and {chip.path} differ in {what}: {ours} and {theirs}. Export them alike."
                )
    if first.grid.width != first.grid.height:
        raise ChipError(
            f"{first.path} is of {first.grid.width} x {first.grid.height} pixels; needed squares. Export it again."
        )


def _index(folder: Path, pairs: Sequence[tuple[str, str]], chips: Sequence[_Pair], legend: Legend) -> gpd.GeoDataFrame:
    pixels = np.stack([chip.counts for chip in chips])
    known = pixels[:, legend.codes]
    columns = {
        "chip": [Path(os.path.relpath(image, "images")).as_posix() for image, _ in pairs],
        "label": [Path(os.path.relpath(label, "labels")).as_posix() for _, label in pairs],
        "source": str(folder),
        "col": -1,
        "row": -1,
        "angle": [_angle(chip.grid) for chip in chips],
        "valid": [chip.valid for chip in chips],
        "labelled": known.sum(axis=1) / (chips[0].grid.width * chips[0].grid.height),
        **{f"pixels_{code}": known[:, place] for place, code in enumerate(legend.codes)},
    }
    crs = next((chip.grid.crs for chip in chips if chip.grid.crs), None)
    return gpd.GeoDataFrame(columns, geometry=_footprints([chip.grid for chip in chips], crs), crs=crs)


def _angle(grid: Grid) -> float:
    """Degrees by which a chip is turned."""
    return float(np.degrees(np.arctan2(grid.transform.d, grid.transform.a))) if grid.transform.d else 0.0


def _footprints(grids: Sequence[Grid], crs: CRS | None) -> NDArray[np.object_]:
    """In one CRS; None where the ground is unknown."""
    shapes = np.full(len(grids), None, object)
    for other in {grid.crs.to_wkt(): grid.crs for grid in grids if grid.crs}.values():
        here = np.array([grid.crs == other for grid in grids])
        own = shapely.polygons([grid.corners() for grid in grids if grid.crs == other])
        shapes[here] = gpd.GeoSeries(own, crs=other).to_crs(crs).to_numpy()
    return shapes


def _manifest(
    folder: Path, chips: Sequence[_Pair], index: gpd.GeoDataFrame, legend: Legend, told: tuple[Mapping[str, Any], ...]
) -> dict[str, Any]:
    model, sums = told
    placed = next((chip.grid for chip in chips if chip.grid.crs), None)
    bands = _bands(model, chips[0].bands)
    report = {
        "chips": len(chips),
        "skipped": dict.fromkeys(("invalid", "unlabelled", "empty", "outside"), 0),
        "empty": int((index[[f"pixels_{code}" for code in legend.codes if code]].sum(axis=1) == 0).sum()),
        "conflict_pixels": 0,
        "polygons": {},
        "labels": {"source": f"{folder}, exported by ArcGIS", "priority": ""},
        "notes": [],
        "warnings": _doubts(chips, legend, sums, placed is None),
    }
    return {
        "version": 2,
        "chips": len(chips),
        "tile_size": chips[0].grid.width,
        "legend": legend.to_json(),
        "bands": bands,
        "dtype": chips[0].dtype,
        "cell_size": list(placed.cell_size) if placed else [1.0, 1.0],
        "units": (placed.crs.linear_units if placed.crs.is_projected else "degree") if placed else "pixel",
        "statistics": _statistics(folder, model, sums, len(bands), index).to_json(),
        "exports": [{"key": "", "options": {}, "sources": [], "report": report}],
    }


def _bands(model: Mapping[str, Any], described: Sequence[str | None]) -> list[str]:
    """Names as the definition has them, else as the first chip; numbers where they tell nothing."""
    names = (model.get("InputRastersProps") or {}).get("BandNames") or []
    names = [str(name or "").strip() for name in (names if len(names) == len(described) else described)]
    clear = len({name.lower() for name in names}) == len(names)
    return [
        name if clear and name and not re.fullmatch(r"band[_ ]?\d+", name, re.IGNORECASE) else f"band_{number}"
        for number, name in enumerate(names, start=1)
    ]


def _statistics(
    folder: Path, model: Mapping[str, Any], sums: Mapping[str, Any], bands: int, index: gpd.GeoDataFrame
) -> BandStats:
    """Of the accumulated sums, else of the definition's summary."""
    try:
        if rows := sums.get("BandStatsState"):
            count = max(int(row["Num"]) for row in rows)
            spread = [(row["M1"], row["M2"] / max(row["Num"], 1) * count, row["Min"], row["Max"]) for row in rows]
        else:
            rows = model["AllTilesStats"]
            count = len(index) * int(model["ImageHeight"]) * int(model["ImageWidth"])
            spread = [(row["Mean"], row["StdDev"] ** 2 * count, row["Min"], row["Max"]) for row in rows]
        mean, m2, low, high = np.array(spread, float).T
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ChipError(f"{folder} has no usable band statistics ({error!r}). Export it again.") from error
    if len(mean) != bands:
        raise ChipError(f"{folder} has statistics of {len(mean)} bands, its chips have {bands}. Export it again.")
    return BandStats(count, mean, m2, low, high)


def _doubts(chips: Sequence[_Pair], legend: Legend, sums: Mapping[str, Any], lost: bool) -> list[str]:
    """What does not fit together, but can be lived with."""
    found = []
    counted = sums.get("NumTiles") or sums.get("NumTilesAsDouble") or len(chips)
    if counted != len(chips):
        words = f"{counted:g}" if isinstance(counted, int | float) else repr(counted)
        found.append(f"{SUMS} counts {words} chips, {MAP} names {len(chips)}; the latter are read.")
    others = np.delete(np.sum([chip.counts for chip in chips], axis=0), [*legend.codes, IGNORE_INDEX]).sum()
    if others:
        found.append(f"{others:,} label pixels have a value that is no class; they count as unlabelled.")
    if lost:
        found.append("The chips have no georeference: they cannot be split by blocks of ground.")
    return found
