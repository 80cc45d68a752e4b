"""The chips of one export folder, or of several: their index, classes, bands and statistics."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geopsp.errors import ChipError, InputNotFoundError
from geopsp.legend import Legend
from geopsp.stats import BandStats

INDEX = "chips.parquet"
MANIFEST = "chips.json"
VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class ChipSet:
    """An exported folder of chips, or several that agree in classes and bands."""

    folders: tuple[Path, ...]
    index: gpd.GeoDataFrame
    """One row a chip; `image` and `label` are its paths."""

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

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        return (
            f"<{len(self)} chips of {self.tile_size} x {self.tile_size}, {len(self.bands)} bands, "
            f"{len(self.legend)} classes ({', '.join(self.legend.names)}) in {', '.join(map(str, self.folders))}>"
        )

    @property
    def pixels_per_class(self) -> NDArray[np.int64]:
        """(classes,) labelled pixels, in the order of the legend."""
        total: NDArray[np.int64] = class_pixels(self.index, self.legend).sum(axis=0)
        return total

    @classmethod
    def open(cls, folders: str | Path | Sequence[str | Path]) -> ChipSet:
        """The chips of one folder, or of several together.

        Raises:
            InputNotFoundError: if there is no such folder.
            ChipError: if one is empty or half-written, or they do not agree.
        """
        paths = [folders] if isinstance(folders, str | Path) else list(folders)
        if not paths:
            raise ChipError("No chip folder was given; needed at least one.")
        sets = [_open_folder(Path(path)) for path in paths]
        return sets[0] if len(sets) == 1 else _join(sets)


def class_pixels(index: gpd.GeoDataFrame, legend: Legend) -> NDArray[np.int64]:
    """(chips, classes) labelled pixels."""
    counts: NDArray[np.int64] = index[[f"pixels_{code}" for code in legend.codes]].to_numpy(np.int64)
    return counts


def _open_folder(folder: Path) -> ChipSet:
    if not folder.is_dir():
        raise InputNotFoundError(f"No such folder: {folder}. Export chips there first (geopsp chips).")
    if not (folder / MANIFEST).exists() or not (folder / INDEX).exists():
        raise ChipError(
            f"{folder} is not a finished chip folder: {MANIFEST} or {INDEX} is missing. Export it again (geopsp chips)."
        )
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        chips = _read_set(folder, manifest, gpd.read_parquet(folder / INDEX))
        class_pixels(chips.index, chips.legend)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ChipError(
            f"{folder} has a damaged {MANIFEST} or {INDEX} ({error!r}). Export it again (geopsp chips)."
        ) from error
    _require_files(folder, chips.index)
    return chips


def _read_set(folder: Path, manifest: dict[str, Any], index: gpd.GeoDataFrame) -> ChipSet:
    if manifest["version"] != VERSION:
        raise ValueError(f"version {manifest['version']}, needed {VERSION}")
    index = index.assign(
        image=[str(folder / "images" / name) for name in index["chip"]],
        label=[str(folder / "labels" / name) for name in index["chip"]],
    )
    return ChipSet(
        folders=(folder,),
        index=index,
        legend=Legend.from_json(manifest["legend"]),
        bands=tuple(manifest["bands"]),
        dtype=manifest["dtype"],
        tile_size=int(manifest["spec"]["tile_size"]),
        cell_size=(float(manifest["cell_size"][0]), float(manifest["cell_size"][1])),
        units=manifest["units"],
        statistics=BandStats.from_json(manifest["statistics"]),
        reports=(manifest["report"],),
    )


def _require_files(folder: Path, index: gpd.GeoDataFrame) -> None:
    if not len(index):
        raise ChipError(f"{folder} holds no chip. Export it again with other labels or a lower min_labelled.")
    there = {path for part in ("images", "labels") for path in map(str, (folder / part).glob("*.tif"))}
    missing = [path for path in [*index["image"], *index["label"]] if path not in there]
    if missing:
        raise ChipError(
            f"{folder} is half-written: {len(missing)} of {2 * len(index)} files are missing, the first is "
            f"{missing[0]}. Export it again (geopsp chips)."
        )


def _join(sets: Sequence[ChipSet]) -> ChipSet:
    """Several folders as one set.

    Raises:
        ChipError: if classes, bands or chip sizes differ.
    """
    first = sets[0]
    for other in sets[1:]:
        for what in ("legend", "bands", "tile_size", "dtype"):
            ours, theirs = getattr(first, what), getattr(other, what)
            if ours != theirs:
                raise ChipError(
                    f"{first.folders[0]} and {other.folders[0]} differ in {what}: {ours} and {theirs}. "
                    "Export them with the same options."
                )
    index = pd.concat([part.index.to_crs(first.index.crs) for part in sets], ignore_index=True)
    statistics = first.statistics
    for part in sets[1:]:
        statistics = statistics.merge(part.statistics)
    return ChipSet(
        tuple(part.folders[0] for part in sets),
        gpd.GeoDataFrame(index, geometry="geometry", crs=first.index.crs),
        first.legend,
        first.bands,
        first.dtype,
        first.tile_size,
        first.cell_size,
        first.units,
        statistics,
        tuple(report for part in sets for report in part.reports),
    )
