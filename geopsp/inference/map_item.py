"""STAC Items of maps: their files, classes, place and time, and what they were made of.

Source: STAC 1.1.0; the extensions projection 2.0.0, raster 2.0.0, classification 1.1.0, file 2.1.0, processing 1.1.0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np
import pyproj
import shapely
from pyproj.exceptions import CRSError, ProjError

from geopsp.core.addresses import href
from geopsp.core.documents import DocumentError, read_json
from geopsp.core.output import atomic_output, check_output
from geopsp.core.paths import VSI_PREFIXES, is_local, local_file
from geopsp.core.pixel_size import ground_size
from geopsp.core.stac import (
    STAC_ENDING,
    class_objects,
    file_fields,
    item,
    plain_name,
    relative_href,
    time_fields,
    time_text,
)
from geopsp.inference.job import MapJob
from geopsp.inference.outputs import needs_calibration
from geopsp.models.hub_model import hub_address
from geopsp.models.manifest import MANIFEST, MODEL_ITEM
from geopsp.models.stac_item import model_name
from geopsp.raster.acquisition import time_range
from geopsp.raster.cog.raster_spec import FRACTION_STEPS, RasterSpec
from geopsp.raster.image_layer import ImageLayer
from geopsp.raster.valid_hull import valid_hull
from geopsp.raster.zarr_store import is_zarr
from geopsp.vector.footprint import geojson_fields, hull_in_wgs84

COG = "image/tiff; application=geotiff; profile=cloud-optimized"

ZARR = "application/vnd.zarr; version=2"

VECTOR_TYPES = {
    ".gpkg": "application/geopackage+sqlite3", ".geojson": "application/geo+json", ".fgb": "application/vnd.flatgeobuf",
    ".parquet": "application/vnd.apache.parquet", ".shp": "application/vnd.shp",
}  # fmt: skip
"""Media types of vector files by their endings."""

TITLES = {
    "classes": "Class of each pixel", "probabilities": "Probability of each class",
    "confidence": "Probability of the predicted class", "disagreement": "How much overlapping tiles differ",
    "polygons": "The map as polygons",
}  # fmt: skip
"""What files hold, by the names of their options."""

EDGE_PARTS = 32
"""Pieces of an outline whose ends are projected, as straight lines become curves."""

SOFTWARE = "geopsp"


def item_path(map_path: Path) -> Path:
    """Return where the Item of a map lies."""
    return map_path.with_name(map_path.stem + STAC_ENDING)


def check_item(map_path: Path, *, overwrite: bool) -> None:
    """Check that the Item of a map can be written; one that geopsp wrote for a map of this name is replaced.

    Raises:
        OutputError: if another file has its name and `overwrite` is False, or it cannot be written.
    """
    check_output(item_path(map_path), overwrite=overwrite or _is_ours(map_path))


def remove_item(map_path: Path) -> None:
    """Remove the Item of an earlier map of this name; a file that geopsp did not write stays."""
    if _is_ours(map_path):
        item_path(map_path).unlink(missing_ok=True)


def _is_ours(map_path: Path) -> bool:
    """True if geopsp wrote an Item for a map of this name."""
    try:
        content = read_json(item_path(map_path))
        is_software = SOFTWARE in content["properties"]["processing:software"]
        return is_software and bool(content["assets"]["classes"]["href"] == relative_href(map_path.name))
    except (OSError, DocumentError, KeyError, TypeError, IndexError):
        return False


def write_map_item(job: MapJob, polygons: Path | None, model: Path | None, *, overwrite: bool = False) -> Path:
    """Write the Item of a finished map beside it, and return its path.

    Args:
        job: That the map was made by.
        polygons: Their file, if there is one.
        model: The folder or file of the model, if it was read from one.
        overwrite: True may replace a file that geopsp did not write.

    Raises:
        OutputError: if it cannot be written.
    """
    path = item_path(job.out)
    content = _map_item(job, polygons, model)
    with atomic_output(path, overwrite=overwrite or _is_ours(job.out)) as partial:
        partial.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    return path


def _map_item(job: MapJob, polygons: Path | None, model: Path | None) -> dict[str, Any]:
    now, name = datetime.now(UTC), plain_name(job.out.stem) or "map"
    found = time_range(layer.acquired for layer in job.scene.layers)
    start, end = (time_text(found[0]), time_text(found[1])) if found else (None, None)
    properties = {
        **time_fields(start, end, now),
        "created": time_text(now),
        "title": f"Classes of {job.scene.name}",
        "gsd": _gsd(job),
        **_projection(job),
        "processing:level": "L4",
        "processing:lineage": "Semantic segmentation of the images by the model that this Item is derived from.",
        "processing:software": {SOFTWARE: version(SOFTWARE)},
        "geopsp:model": job.model,
        **_confidence(job),
    }
    assets = {raster.name: _raster_asset(job, raster) for raster in job.rasters}
    if polygons is not None:
        kind = VECTOR_TYPES.get(polygons.suffix.lower())
        assets["polygons"] = {**_asset(job, polygons, "polygons"), **({"type": kind} if kind else {})}
    return item(
        f"{name}-{job.key[:8]}",
        {key: value for key, value in properties.items() if value is not None or key == "datetime"},
        assets,
        extensions=("projection", "raster", "classification", "file", "processing"),
        place=_place(job),
        links=list(_links(job, model)),
    )


def _confidence(job: MapJob) -> dict[str, Any]:
    """Return how probabilities are calibrated, if the map shows them, and which class unsure pixels have."""
    rules, found = job.confidence, dict[str, Any]()
    if rules.calibration is not None and (rules.limits or needs_calibration(job.rasters)):
        found["geopsp:calibration"] = rules.calibration.words
    if rules.limits:
        found["geopsp:min_confidence"] = {
            name: steps / FRACTION_STEPS for name, steps in zip(job.legend.names, rules.limits, strict=True)
        }
    return found


def _asset(job: MapJob, path: Path, name: str) -> dict[str, Any]:
    about = {} if is_zarr(path) else file_fields(path)
    return {"href": _href(path, job.out.parent), "title": TITLES[name], "roles": ["data"], **about}


def _raster_asset(job: MapJob, raster: RasterSpec) -> dict[str, Any]:
    nodata = "nan" if math.isnan(raster.nodata) else raster.nodata
    band = {"data_type": raster.dtype, "nodata": nodata}
    band |= {"raster:scale": raster.scale} if raster.scale != 1 else {}
    fields = {
        **_asset(job, raster.path, raster.name),
        "type": ZARR if is_zarr(raster.path) else COG,
        "raster:sampling": "area",
        "bands": [{"name": name, **band} for name in raster.bands],
    }
    gsd = _gsd(job)
    fields |= {"raster:spatial_resolution": gsd} if gsd else {}
    return fields | ({"classification:classes": class_objects(raster.legend)} if raster.legend else {})


def _gsd(job: MapJob) -> float | None:
    """Return the height of a pixel on the ground in metres, in the middle of the map."""
    size = ground_size(job.scene.grid)[1]
    return float(f"{size:.6g}") if math.isfinite(size) and size > 0 else None


def _projection(job: MapJob) -> dict[str, Any]:
    grid = job.scene.grid
    authority = grid.crs.to_authority()
    corners = grid.corners()
    return {
        **({"proj:code": ":".join(authority)} if authority else {"proj:wkt2": grid.crs.to_wkt(version="WKT2_2019")}),
        "proj:shape": [grid.height, grid.width],
        "proj:transform": list(grid.transform)[:6],
        "proj:bbox": [*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()],
    }


def _place(job: MapJob) -> dict[str, Any] | None:
    """Return geometry and bounds of the valid pixels in WGS 84; None if there are none, or not on this globe."""
    hull = valid_hull(job.out)
    if hull is None:
        return None
    outline = np.array([shapely.segmentize(hull, shapely.length(hull) / EDGE_PARTS)], object)
    with suppress(ProjError, CRSError, shapely.errors.GEOSException):
        fields = geojson_fields(hull_in_wgs84(outline, pyproj.CRS.from_user_input(job.scene.grid.crs)))
        if np.isfinite(fields["bbox"]).all():
            return fields
    return None


def _links(job: MapJob, model: Path | None) -> Iterator[dict[str, str]]:
    """Yield links to the Items that the map is derived from: the model's and the images', or their files."""
    folder = job.out.parent
    if model is not None:
        is_file = model.is_file()
        names = (
            (model.with_name(model.name + STAC_ENDING), model) if is_file else (model / MODEL_ITEM, model / MANIFEST)
        )
        found = next((path for path in names if path.is_file()), None)
        if found is not None:
            is_item = found.name.endswith(STAC_ENDING)
            yield {
                "rel": "derived_from",
                "href": f"{address}/{found.name}" if (address := hub_address(model)) else _href(found, folder),
                **({"type": "application/geo+json"} if is_item else {}),
                "title": "The model",
                "mlm:name": model_name(model.stem if is_file else model.resolve().name),
            }
    addresses = dict.fromkeys(address for layer in job.scene.layers for address in _addresses(layer))
    for address, is_item in addresses:
        kind = {"type": "application/geo+json"} if is_item else {}
        yield {"rel": "derived_from", "href": _image_href(address, folder), **kind, "title": "An image"}


def _addresses(layer: ImageLayer) -> Sequence[tuple[str, bool]]:
    """Return where an image comes from, and whether that is a STAC Item."""
    return [(layer.stac_item, True)] if layer.stac_item else [(source.path, False) for source in layer.sources]


def _image_href(address: str, folder: Path) -> str:
    """Return the address of an image for a link; of a URL without what may be secret: password and query."""
    file = Path(address) if is_local(address) else local_file(address)
    if file is not None:
        return _href(file, folder)
    for scheme, prefix in VSI_PREFIXES.items():
        if address.startswith(prefix):
            address = f"{scheme}://{address.removeprefix(prefix)}"
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _href(path: Path, folder: Path) -> str:
    """Return the address of a file from the Item's folder."""
    if path.parent == folder:
        return relative_href(path.name)
    return href(path, folder)
