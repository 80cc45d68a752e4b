"""Chip folders: open one, or join several, with their index, classes, bands and statistics."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geopsp.chips.arcgis_read import read_arcgis_folder
from geopsp.chips.arcgis_write import MAP_FILE
from geopsp.chips.chip_folder import INDEX, MANIFEST, read_folder, require_files
from geopsp.core.addresses import shown
from geopsp.core.argument_names import did_you_mean_one
from geopsp.core.bands import BandStats
from geopsp.core.escape import printable
from geopsp.core.legend import BACKGROUND, IGNORE_INDEX, Legend
from geopsp.core.notebook_html import Cell, html_block, html_facts, html_table
from geopsp.core.options import require_path
from geopsp.core.pixel_values import RAW, PixelValues
from geopsp.core.remote_input import input_folder
from geopsp.core.text import format_count, format_pixel_size
from geopsp.errors import ChipError, InputNotFoundError

logger = logging.getLogger(__name__)

PROPERTIES = {"bands": "bands", "tile_size": "chip size", "dtype": "data type", "units": "CRS units"}
"""What chips that are used together have in common, and the words of messages."""


SKIP_WORDS = {
    "invalid": "with too few valid pixels", "unlabelled": "with too few labelled pixels",
    "empty": "without any class", "outside": "not completely inside the area of interest",
}  # fmt: skip
"""Words for the reasons to skip a chip."""


@dataclass(frozen=True, slots=True, eq=False)
class ChipSet:
    """A chip folder, or several with the same bands, data type and chip size."""

    folders: tuple[Path, ...]
    index: gpd.GeoDataFrame
    """One row per chip. `image` and `label` are paths, `table` is the number in `tables` that its labels need.

    Chips that are cut when they are needed, and lie in no folder, have no paths.
    """

    legend: Legend
    bands: tuple[str, ...]
    dtype: str
    tile_size: int
    cell_size: tuple[float, float]
    """Pixel width and height in CRS units."""

    units: str
    statistics: BandStats
    """Of the valid pixels of all chips."""

    reports: tuple[dict[str, Any], ...]
    """One per export, as in chips.json."""

    tables: tuple[NDArray[np.uint8], ...]
    """For each folder (256,) channel indices by the code in its label files; IGNORE_INDEX for other codes."""

    files: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The image files of each source, where they are known."""

    pixel_values: PixelValues = RAW
    """What the values of pixels mean."""

    times: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The earliest and the latest acquisition time of each source, where they are known."""

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        where = f"in {', '.join(map(shown, self.folders))}" if self.folders else "cut when asked for"
        size, bands = f"{self.tile_size} x {self.tile_size}", format_count(len(self.bands), "band")
        classes = f"{format_count(len(self.legend), 'class', 'classes')} ({', '.join(self.legend.names)})"
        return printable(f"<{format_count(len(self), 'chip')} of {size}, {bands}, {classes} {where}>")

    def _repr_html_(self) -> str:
        facts = {
            "chips": f"{len(self):,} of {self.tile_size} x {self.tile_size} pixels",
            "bands": f"{', '.join(self.bands)} ({self.dtype})",
            "pixels": format_pixel_size(*self.cell_size, self.units),
            "labelled": f"{self.index['labelled'].mean():.1%} of all pixels",
            "folder": ", ".join(map(shown, self.folders)) or "none; chips are cut when asked for",
        }
        skipped = "; ".join(filter(None, map(describe_skipped, self.reports)))
        facts |= {"left out": skipped} if skipped else {}
        rows: list[list[Cell]] = [
            [info, str(info.code), f"{row['pixels']:,}", f"{row['share']:.1%}", f"{row['chips']:,}"]
            for info, row in zip(self.legend, class_rows(self), strict=True)
        ]
        table = html_table(["class", "code", "pixels", "share", "chips"], rows)
        return html_block(type(self).__name__, html_facts(facts), table)

    @property
    def pixels_per_class(self) -> NDArray[np.int64]:
        """Labelled pixels by class, (classes,), in the order of the legend."""
        total: NDArray[np.int64] = class_pixels(self.index, self.legend).sum(axis=0)
        return total

    def with_legend(self, legend: Legend) -> ChipSet:
        """Return the same chips with the classes of another legend, matched by name.

        Raises:
            ChipError: if the legend lacks a class of the chips.
        """
        if legend == self.legend:
            return self
        unknown = [name for name in self.legend.names if name not in legend.names]
        if unknown:
            raise ChipError(
                f"The chips in {', '.join(map(str, self.folders))} have classes that are not known here: "
                f"{', '.join(unknown)}. Known classes: {', '.join(legend.names)}."
                f"{did_you_mean_one(unknown, legend.names)} Export them with the same classes."
            )
        channels = np.full(256, IGNORE_INDEX, np.uint8)
        channels[: len(self.legend)] = [legend.names.index(name) for name in self.legend.names]
        counts = np.zeros((len(self), len(legend)), np.int64)
        counts[:, channels[: len(self.legend)]] = class_pixels(self.index, self.legend)
        index = self.index.drop(columns=[f"pixels_{code}" for code in self.legend.codes])
        columns = {f"pixels_{code}": counts[:, i] for i, code in enumerate(legend.codes)}
        tables = tuple(channels[table] for table in self.tables)
        return replace(self, index=index.assign(**columns), legend=legend, tables=tables)

    @classmethod
    def open(cls, folders: str | Path | Sequence[str | Path]) -> ChipSet:
        """Open one chip folder, or join several; also folders of "Classified Tiles" that ArcGIS exported.

        Raises:
            InputNotFoundError: if there is no such folder.
            OptionError: if one is no path.
            ChipError: if a folder is empty or incomplete, or the folders differ in bands, data type or chip size.
        """
        paths = [folders] if isinstance(folders, str | Path) or not isinstance(folders, Iterable) else list(folders)
        if not paths:
            raise ChipError("No chip folder is given. Give at least one.")
        for path in paths:
            require_path("path", path)
        sets = [_open_folder(input_folder(path, holding=(MANIFEST, MAP_FILE))) for path in paths]
        return sets[0] if len(sets) == 1 else _join(sets)

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any], index: gpd.GeoDataFrame, folder: Path | None = None) -> ChipSet:
        """Make the chip set of a manifest and an index, as `read_folder` returns them; paths need `folder`."""
        if folder is not None:
            paths = {
                name: [str(folder / f"{name}s" / file) for file in index[column]]
                for name, column in (("image", "chip"), ("label", "label"))
            }
            index = index.assign(**paths)
        legend = Legend.from_json(manifest["legend"])
        return cls(
            folders=() if folder is None else (folder,),
            index=index.assign(table=0),
            legend=legend,
            bands=tuple(manifest["bands"]),
            dtype=manifest["dtype"],
            tile_size=int(manifest["tile_size"]),
            cell_size=(float(manifest["cell_size"][0]), float(manifest["cell_size"][1])),
            units=manifest["units"],
            statistics=BandStats.from_json(manifest["statistics"]),
            reports=tuple(entry["report"] for entry in manifest["exports"]),
            tables=(legend.codes_to_indices(np.arange(256, dtype=np.uint8)),),
            files={name: paths for entry in manifest["exports"] for name, paths in entry.get("images", {}).items()},
            pixel_values=PixelValues.from_json(manifest.get("pixel_values")),
            times={name: range_ for entry in manifest["exports"] for name, range_ in entry.get("times", {}).items()},
        )

    # names of earlier versions
    of = from_manifest
    under = with_legend


def class_pixels(index: gpd.GeoDataFrame, legend: Legend) -> NDArray[np.int64]:
    """Return (chips, classes) labelled pixels."""
    counts: NDArray[np.int64] = index[[f"pixels_{code}" for code in legend.codes]].to_numpy(np.int64)
    return counts


def class_rows(chips: ChipSet, rows: NDArray[np.intp] | None = None) -> list[dict[str, Any]]:
    """Return the number of pixels, their fraction, the chips and the polygons of each class.

    Pixels and chips are those of some rows of the index; polygons are those of the exports.
    """
    counts = class_pixels(chips.index if rows is None else chips.index.iloc[rows], chips.legend)
    total = max(int(counts.sum()), 1)
    return [
        {
            "code": info.code,
            "name": info.name,
            "pixels": int(pixels.sum()),
            "share": int(pixels.sum()) / total,
            "chips": int((pixels > 0).sum()),
            "polygons": sum(report.get("polygons", {}).get(info.name, 0) for report in chips.reports),
        }
        for info, pixels in zip(chips.legend, counts.T, strict=True)
    ]


def describe_skipped(report: Mapping[str, Any]) -> str:
    """Return which chips an export left out, in words; "" if it left out none."""
    return ", ".join(
        f"{format_count(count, 'chip')} {SKIP_WORDS.get(reason, reason)}"
        for reason, count in report["skipped"].items()
        if count
    )


def _open_folder(folder: Path) -> ChipSet:
    if not folder.is_dir():
        raise InputNotFoundError(f"No such folder: {folder}. Export chips first with `export_training_data()`.")
    if is_arcgis_folder(folder):
        return ChipSet.from_manifest(*read_arcgis_folder(folder), folder)
    manifest, index = read_folder(folder)
    chips = ChipSet.from_manifest(manifest, index, folder)
    require_files(folder, chips.index)
    return chips


def is_arcgis_folder(folder: Path) -> bool:
    """Return True if ArcGIS exported the chips, so that our own files are missing."""
    return (folder / MAP_FILE).exists() and not any((folder / name).exists() for name in (MANIFEST, INDEX))


def _join(sets: Sequence[ChipSet]) -> ChipSet:
    """Join several folders, with the classes of all.

    Raises:
        ChipError: if bands, data types or chip sizes differ, or a folder is given twice.
    """
    first = sets[0]
    folders = tuple(part.folders[0] for part in sets)
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ChipError(f"A chip folder is given twice: {', '.join(map(str, folders))}. Give each once.")
    properties = [{name: getattr(part, name) for name in (*PROPERTIES, "pixel_values")} for part in sets]
    for other, theirs in zip(folders[1:], properties[1:], strict=True):
        if difference := describe_difference(properties[0], theirs):
            raise ChipError(f"{folders[0]} and {other} differ in {difference}. Export them with the same options.")
    legend = _merge_legends([part.legend for part in sets])
    parts = [part.with_legend(legend) for part in sets]
    frames = [to_crs(part.index, first.index.crs).assign(table=number) for number, part in enumerate(parts)]
    statistics, values = first.statistics, first.pixel_values
    for part in sets[1:]:
        values = values.filled(part.pixel_values)
        statistics = statistics.merge(part.statistics)
    return replace(
        first,
        folders=folders,
        index=gpd.GeoDataFrame(pd.concat(frames, ignore_index=True), geometry="geometry", crs=first.index.crs),
        legend=legend,
        statistics=statistics,
        reports=tuple(report for part in sets for report in part.reports),
        tables=tuple(table for part in parts for table in part.tables),
        files={name: paths for part in parts for name, paths in part.files.items()},
        pixel_values=values,
        times={name: range_ for part in parts for name, range_ in part.times.items()},
    )


def describe_difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Return in what chips differ, e.g. "chip size: 32 and 64"; "" if they can be used together.

    Both map the names of `PROPERTIES` to what they are, and "pixel_values" to what these mean, if that is known.
    """
    for name, words in PROPERTIES.items():
        one, other = (", ".join(each[name]) if name == "bands" else str(each[name]) for each in (ours, theirs))
        if one != other:
            return f"{words}: {one} and {other}"
    first, second = (_values_of(each) for each in (ours, theirs))
    if first.scaled != second.scaled or (not first.scaled and first.differs(second)):
        return f"pixel values: {first} and {second}"
    if first.lacks(second) or second.lacks(first):
        logger.warning(f"Chips of {first} and of {second} are used together: their values are taken to mean the same.")
    return ""


def _values_of(properties: Mapping[str, Any]) -> PixelValues:
    """Return what values mean; properties are attributes of a chip set, or those in its manifest."""
    found = properties.get("pixel_values")
    return found if isinstance(found, PixelValues) else PixelValues.from_json(found)


def to_crs(index: gpd.GeoDataFrame, crs: Any) -> gpd.GeoDataFrame:
    """Return the index with its footprints in a CRS; chips without georeference have none."""
    if index.crs is None or crs is None:
        return index.set_crs(crs, allow_override=True) if index.geometry.isna().all() else index
    return index if index.crs == crs else index.to_crs(crs)


def _merge_legends(legends: Sequence[Legend]) -> Legend:
    """Return the classes of all, with their codes if these agree, else with new ones: background 0, others by name."""
    found = {info.name: info for legend in legends for info in legend}
    codes = {info.code for info in found.values()}
    agree = len(codes) == len(found) and all(info.code == found[info.name].code for each in legends for info in each)
    if agree:
        return Legend(tuple(sorted(found.values(), key=lambda info: info.code)))
    names = sorted(name for name in found if name != BACKGROUND)
    numbered = ({0: BACKGROUND} if BACKGROUND in found else {}) | dict(enumerate(names, start=1))
    return Legend.from_names(numbered, {code: found[name].color for code, name in numbered.items()})
