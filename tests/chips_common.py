"""Chip folders made of arrays."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from rasterio.transform import from_origin

from geopsp.chips.chip_set import ChipSet
from geopsp.core.bands import BandStats
from geopsp.core.legend import IGNORE_INDEX, Legend

LEGEND = Legend.from_names({0: "background", 7: "water", 9: "road"})


def write(path: Path, data, *, mask=None, **profile):
    path.parent.mkdir(exist_ok=True, parents=True)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", driver="GTiff", dtype=data.dtype, count=len(data), height=data.shape[1], width=data.shape[2],
            crs="EPSG:32632", transform=from_origin(601234.0, 5301717.0, 2, 2), **profile,
        ) as dataset,
    ):  # fmt: skip
        dataset.write(data)
        if mask is not None:
            dataset.write_mask(mask)


def chipset(folder: Path, images, labels, *, masks=None, **profile) -> ChipSet:
    """Chips of these pixels and codes."""
    size, bands = images[0].shape[-1], len(images[0])
    stats = BandStats.empty(bands)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        mask = masks[i] if masks is not None else None
        write(folder / "images" / f"{i}.tif", image, mask=mask, **profile)
        write(folder / "labels" / f"{i}.tif", label[None], nodata=IGNORE_INDEX)
        stats = stats.merge(BandStats.from_array(image, np.ones((size, size), bool) if mask is None else mask))
    places = {part: [str(folder / part / f"{i}.tif") for i in range(len(images))] for part in ("images", "labels")}
    index = gpd.GeoDataFrame(
        {"image": places["images"], "label": places["labels"], "table": 0},
        geometry=[shapely.box(i, 0, i + 1, 1) for i in range(len(images))], crs="EPSG:32632",
    )  # fmt: skip
    names = tuple(f"band_{i + 1}" for i in range(bands))
    tables = (LEGEND.codes_to_indices(np.arange(256, dtype=np.uint8)),)
    return ChipSet((folder,), index, LEGEND, names, images[0].dtype.name, size, (2.0, 2.0), "metre", stats, (), tables)
