"""The chips of one export folder, or of several: their index, classes, bands and statistics."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geopsp.chips.arcgis_read import read_esri_folder
from geopsp.chips.arcgis_write import MAP
from geopsp.core.bands import BandStats
from geopsp.core.legend import BACKGROUND, IGNORE_INDEX, Legend
from geopsp.errors import ChipError, InputNotFoundError

INDEX = "chips.parquet"


MANIFEST = "chips.json"


VERSION = 2


@dataclass(frozen=True, slots=True, eq=False)
class ChipSet:
    """An exported folder of chips, or several that agree in classes and bands."""

    folders: tuple[Path, ...]
    index: gpd.GeoDataFrame
    """One row a chip; `image` and `label` are its paths, `table` tells which of `tables` reads its labels.

    Of chips that lie in no folder, because they are cut when they are asked for, there are no paths.
    """

    legend: Legend
    bands: tuple[str, ...]
    dtype: str
    tile_size: int
    cell_size: tuple[float, float]
    """Pixel width and height in CRS units."""

    units: str
    statistics: BandStats
    """Over the valid pixels of all chips."""

    reports: tuple[dict[str, Any], ...]
    tables: tuple[NDArray[np.uint8], ...]
    """For each folder (256,) channel indices by the code in its label files; IGNORE for a code that is no class."""

    files: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The image files of each source, as far as they are known."""

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        place = f"in {', '.join(map(str, self.folders))}" if self.folders else "cut when asked for"
        return (
            f"<{len(self)} chips of {self.tile_size} x {self.tile_size}, {len(self.bands)} bands, "
            f"{len(self.legend)} classes ({', '.join(self.legend.names)}) {place}>"
        )

    @property
    def pixels_per_class(self) -> NDArray[np.int64]:
        """(classes,) labelled pixels, in the order of the legend."""
        total: NDArray[np.int64] = class_pixels(self.index, self.legend).sum(axis=0)
        return total

    def with_legend(self, legend: Legend) -> ChipSet:
        """The same chips in the classes of another legend, matched by name.

        Raises:
            ChipError: if it lacks one of their classes.
        """
        if legend == self.legend:
            return self
        unknown = [name for name in self.legend.names if name not in legend.names]
        if unknown:
            raise ChipError(
                f"The chips in {', '.join(map(str, self.folders))} have classes that are not known here: "
                f"{', '.join(unknown)}; known are {', '.join(legend.names)}. Export them with the same classes."
            )
        place = np.full(256, IGNORE_INDEX, np.uint8)
        place[: len(self.legend)] = [legend.names.index(name) for name in self.legend.names]
        counts = np.zeros((len(self), len(legend)), np.int64)
        counts[:, place[: len(self.legend)]] = class_pixels(self.index, self.legend)
        index = self.index.drop(columns=[f"pixels_{code}" for code in self.legend.codes])
        columns = {f"pixels_{code}": counts[:, i] for i, code in enumerate(legend.codes)}
        tables = tuple(place[table] for table in self.tables)
        return replace(self, index=index.assign(**columns), legend=legend, tables=tables)

    @classmethod
    def open(cls, folders: str | Path | Sequence[str | Path]) -> ChipSet:
        """The chips of one folder, or of several together; folders that ArcGIS exported are read as they are.

        Raises:
            InputNotFoundError: if there is no such folder.
            ChipError: if one is empty or half-written, or they do not agree.
        """
        paths = [folders] if isinstance(folders, str | Path) else list(folders)
        if not paths:
            raise ChipError("No chip folder was given; needed at least one.")
        sets = [_open_folder(Path(path)) for path in paths]
        return sets[0] if len(sets) == 1 else _join(sets)

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any], index: gpd.GeoDataFrame, folder: Path | None = None) -> ChipSet:
        """The chips that a manifest and an index tell of, in a folder or in none."""
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
        )

    # names of earlier versions
    of = from_manifest
    under = with_legend


def class_pixels(index: gpd.GeoDataFrame, legend: Legend) -> NDArray[np.int64]:
    """(chips, classes) labelled pixels."""
    counts: NDArray[np.int64] = index[[f"pixels_{code}" for code in legend.codes]].to_numpy(np.int64)
    return counts


def _open_folder(folder: Path) -> ChipSet:
    if not folder.is_dir():
        raise InputNotFoundError(f"No such folder: {folder}. Export chips there first (geopsp chips).")
    if (folder / MAP).exists() and not any((folder / ours).exists() for ours in (MANIFEST, INDEX)):
        return ChipSet.from_manifest(*read_esri_folder(folder), folder)
    manifest, index = read_folder(folder)
    chips = ChipSet.from_manifest(manifest, index, folder)
    _require_files(folder, chips.index)
    return chips


def read_folder(folder: Path) -> tuple[dict[str, Any], gpd.GeoDataFrame]:
    """What chips.json and chips.parquet of a folder hold.

    Raises:
        ChipError: if they are missing or damaged.
    """
    if not (folder / MANIFEST).exists() or not (folder / INDEX).exists():
        raise ChipError(
            f"{folder} is not a finished chip folder: {MANIFEST} or {INDEX} is missing. Export it again (geopsp chips)."
        )
    try:
        manifest, index = _current(
            json.loads((folder / MANIFEST).read_text(encoding="utf-8")), gpd.read_parquet(folder / INDEX)
        )
        index = index.iloc[: manifest["chips"]]  # a killed export may have added some
        class_pixels(index, ChipSet.from_manifest(manifest, index).legend)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ChipError(
            f"{folder} has a damaged {MANIFEST} or {INDEX} ({error!r}). Export it again (geopsp chips)."
        ) from error
    return manifest, index


def _current(manifest: dict[str, Any], index: gpd.GeoDataFrame) -> tuple[dict[str, Any], gpd.GeoDataFrame]:
    """Manifest and index of version 1 as those of today."""
    if manifest["version"] == VERSION:
        return manifest, index
    if manifest["version"] != 1:
        raise ValueError(f"version {manifest['version']}, needed 1 or {VERSION}")
    old = manifest["report"]
    skipped = {
        "invalid": old["without_valid_pixel"],
        "unlabelled": old["too_little_labelled"],
        "empty": 0,
        "outside": 0,
    }
    report = {**old, "skipped": skipped, "empty": 0, "polygons": {}, "notes": [], "warnings": []}
    manifest |= {"version": VERSION, "chips": len(index), "tile_size": manifest["spec"]["tile_size"]}
    manifest["exports"] = [{"options": manifest["spec"], "sources": manifest["sources"], "report": report}]
    return manifest, index.assign(label=index["chip"], angle=0.0)


def _require_files(folder: Path, index: gpd.GeoDataFrame) -> None:
    if not len(index):
        raise ChipError(f"{folder} holds no chip. Export it again with other labels or a lower min_labelled.")
    parts = [folder / part for part in ("images", "labels") if (folder / part).is_dir()]
    there = {entry.path for part in parts for entry in os.scandir(part)}
    missing = [path for path in [*index["image"], *index["label"]] if path not in there]
    if missing:
        raise ChipError(
            f"{folder} is half-written: {len(missing)} of {2 * len(index)} files are missing, the first is "
            f"{missing[0]}. Export it again, overwriting it (geopsp chips --overwrite)."
        )


def _join(sets: Sequence[ChipSet]) -> ChipSet:
    """Several folders as one set, with the classes of all.

    Raises:
        ChipError: if bands, pixel types or chip sizes differ, or a folder is given twice.
    """
    first = sets[0]
    folders = tuple(part.folders[0] for part in sets)
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ChipError(f"A chip folder is given twice: {', '.join(map(str, folders))}. Name each once.")
    for other in sets[1:]:
        for what in ("bands", "tile_size", "dtype", "units"):
            ours, theirs = getattr(first, what), getattr(other, what)
            if ours != theirs:
                raise ChipError(
                    f"{first.folders[0]} and {other.folders[0]} differ in {what}: {ours} and {theirs}. "
                    "Export them with the same options."
                )
    legend = _all_classes([part.legend for part in sets])
    parts = [part.with_legend(legend) for part in sets]
    frames = [_placed(part.index, first.index.crs).assign(table=number) for number, part in enumerate(parts)]
    statistics = first.statistics
    for part in sets[1:]:
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
    )


def _placed(index: gpd.GeoDataFrame, crs: Any) -> gpd.GeoDataFrame:
    """The index with its footprints in a CRS; chips of pixels only have none."""
    return index if index.crs == crs else index.to_crs(crs)


def _all_classes(legends: Sequence[Legend]) -> Legend:
    """The classes of all: with their codes where these agree, else background 0 and the others numbered by name."""
    found = {info.name: info for legend in legends for info in legend}
    codes = {info.code for info in found.values()}
    agree = len(codes) == len(found) and all(info.code == found[info.name].code for own in legends for info in own)
    if agree:
        return Legend(tuple(sorted(found.values(), key=lambda info: info.code)))
    names = sorted(name for name in found if name != BACKGROUND)
    numbered = ({0: BACKGROUND} if BACKGROUND in found else {}) | dict(enumerate(names, start=1))
    return Legend.from_names(numbered, {code: found[name].color for code, name in numbered.items()})
