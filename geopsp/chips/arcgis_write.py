"""Write the files by which ArcGIS knows a folder of "Classified Tiles"."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np

from geopsp.core.bands import BandStats
from geopsp.core.escape import printable_lines
from geopsp.core.legend import Legend

MAP_FILE = "map.txt"


MODEL_FILE = "esri_model_definition.emd"


SUMS_FILE = "esri_accumulated_stats.json"


MODE = "Classified_Tiles"


def write_arcgis_files(
    folder: Path,
    index: gpd.GeoDataFrame,
    legend: Legend,
    stats: BandStats,
    bands: Sequence[str],
    dtype: str,
    tile_size: int,
) -> None:
    """Write map.txt, stats.txt, esri_model_definition.emd and esri_accumulated_stats.json to a folder."""
    counts = index[[f"pixels_{code}" for code in legend.codes]].to_numpy(np.int64)
    pairs = "".join(
        f"images/{chip} labels/{label}\n" for chip, label in zip(index["chip"], index["label"], strict=True)
    )
    (folder / MAP_FILE).write_text(pairs, encoding="utf-8")
    (folder / "stats.txt").write_text(_summary(index, legend, counts), encoding="utf-8")
    definition = _model_definition(legend, stats, bands, dtype, tile_size)
    (folder / MODEL_FILE).write_text(json.dumps(definition, indent=1), encoding="utf-8")
    accumulated = _accumulated(len(index), counts, stats, tile_size)
    (folder / SUMS_FILE).write_text(json.dumps(accumulated, indent=1), encoding="utf-8")


def _summary(index: gpd.GeoDataFrame, legend: Legend, counts: Any) -> str:
    lines = [f"images = {len(index)} *{len(legend)} classes", "", "class chips pixels"]
    lines += [f"{info.name} {int((counts[:, i] > 0).sum())} {int(counts[:, i].sum())}" for i, info in enumerate(legend)]
    return printable_lines(lines) + "\n"


def _model_definition(
    legend: Legend, stats: BandStats, bands: Sequence[str], dtype: str, tile_size: int
) -> dict[str, Any]:
    std = stats.std
    return {
        "Framework": "",
        "ModelConfiguration": "",
        "ModelFile": "",
        "InferenceFunction": "",
        "MetaDataMode": MODE,
        "ImageSpaceUsed": "MAP_SPACE",
        "ImageHeight": tile_size,
        "ImageWidth": tile_size,
        "ExtractBands": list(range(len(bands))),
        "DataRange": [float(stats.low.min()), float(stats.high.max())],
        "AllTilesStats": [
            {
                "Min": float(stats.low[i]),
                "Max": float(stats.high[i]),
                "Mean": float(stats.mean[i]),
                "StdDev": float(std[i]),
            }
            for i in range(len(bands))
        ],
        "InputRastersProps": {
            "RasterCount": 1,
            "SensorName": "Raster Dataset",
            "BandNames": list(bands),
            "PixelType": dtype,
        },
        "Classes": [{"Value": c.code, "Name": c.name, "Color": list(c.rgb)} for c in legend],
    }


def _accumulated(chips: int, counts: Any, stats: BandStats, tile_size: int) -> dict[str, Any]:
    return {
        "Version": "1.0.0",
        "MetaDataMode": MODE,
        "NumTiles": chips,
        "NumBands": len(stats.mean),
        "NumClasses": counts.shape[1],
        "TileSizeX": tile_size,
        "TileSizeY": tile_size,
        "OutputFeatures": True,
        "ClassPixelStats": {
            "NumImagesTotal": chips,
            "NumImagesPerClass": (counts > 0).sum(axis=0).tolist(),
            "NumPixelsPerClass": counts.sum(axis=0).tolist(),
        },
        "BandStatsState": [
            {
                "Min": float(stats.low[i]),
                "Max": float(stats.high[i]),
                "M1": float(stats.mean[i]),
                "M2": float(stats.m2[i]),
                "Num": stats.count,
            }
            for i in range(len(stats.mean))
        ],
    }
