"""Images that a STAC file (SpatioTemporal Asset Catalog) lists: an Item, or an ItemCollection as searches give it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geopsp.errors import RasterError
from geopsp.raster.band_files import SourceImage, is_ancillary
from geopsp.raster.open import RASTER_ENDINGS

if TYPE_CHECKING:
    from pystac import Asset, Item

ENDINGS = {".json", ".geojson"}


RASTER_TYPES = ("image/tiff", "image/vnd.stac.geotiff", "image/jp2", "application/x-geotiff")


PICTURES = {"visual", "overview", "thumbnail"}


NO_BANDS = PICTURES | {
    "metadata", "cloud", "cloud-shadow", "data-mask", "snow-ice", "water-mask", "land-water", "saturation", "date",
    "sun-azimuth", "sun-zenith", "azimuth", "incidence-angle", "iso19115", "index",
}  # fmt: skip
"""Roles of assets that show something else than ground."""


def read_items(path: Path) -> list[SourceImage]:
    """The images of an Item or an ItemCollection file, one an Item.

    Raises:
        RasterError: if it is neither, or an Item has no asset with imagery.
    """
    from pystac import Item, ItemCollection
    from pystac.errors import STACError, STACTypeError

    needed = "needed a STAC Item, or an ItemCollection (a FeatureCollection of Items)"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        kind = content.get("type") if isinstance(content, dict) else type(content).__name__
        if kind in {"Catalog", "Collection"}:
            raise RasterError(
                f"{path} is a STAC {kind}, which lists no pixels; {needed}. Save a search, or name Items."
            )
        if kind == "Feature":
            items = [Item.from_dict(content)]
        elif kind == "FeatureCollection":
            items = list(ItemCollection.from_dict(content))
        else:
            raise RasterError(f"{path} holds {kind}; {needed}.")
    except (STACError, STACTypeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RasterError(f"{path} is no STAC file ({error!r}); {needed}.") from error
    if not items:
        raise RasterError(f"{path} lists no Item. Widen the search that it comes from.")
    return [_image(item, path) for item in items]


def _image(item: Item, path: Path) -> SourceImage:
    item.remove_links("self")  # relative addresses count from the file that was given
    item.set_self_href(str(path.resolve()))
    assets = _imagery(item, path)
    files = tuple(str(asset.get_absolute_href()) for asset in assets.values())
    when = item.datetime or item.common_metadata.start_datetime
    left = sorted(set(item.assets) - set(assets))
    notes = (f"of {item.id}, these assets are read: {', '.join(assets)}; left out: {', '.join(left)}",) if left else ()
    nodata = tuple(_nodata(asset) for asset in assets.values())
    return SourceImage(item.id, files, _names(assets), when, item.properties, nodata, notes)


def _imagery(item: Item, path: Path) -> dict[str, Asset]:
    """The assets that show ground, each band once; a picture made of bands only if there is nothing else."""
    rasters = {key: asset for key, asset in item.assets.items() if _is_raster(asset)}
    shown = {key: asset for key, asset in rasters.items() if not _is_beside(key, asset, NO_BANDS)}
    if not shown:
        shown = {key: asset for key, asset in rasters.items() if not _is_beside(key, asset, NO_BANDS - PICTURES)}
        shown = dict(list(shown.items())[:1])
    if not shown:
        raise RasterError(
            f"{item.id} in {path} has no asset with imagery; it has {', '.join(item.assets) or 'none'}. "
            "Needed one with the role 'data' or with bands, as GeoTIFF or JPEG 2000."
        )
    once: dict[tuple[str, ...], str] = {}
    for key in sorted(shown, key=lambda key: "tif" not in (shown[key].media_type or shown[key].href)):
        once.setdefault(_own_names(key, shown[key]), key)
    return {key: shown[key] for key in shown if key in once.values()}


def _is_raster(asset: Asset) -> bool:
    kind = (asset.media_type or "").lower()
    if not kind:
        return Path(asset.href.split("?")[0]).suffix.lower() in RASTER_ENDINGS - {".png", ".jpg", ".jpeg"}
    return kind.startswith(RASTER_TYPES)


def _is_beside(key: str, asset: Asset, roles: set[str]) -> bool:
    theirs = set(asset.roles or ())
    if theirs & roles or is_ancillary(key) or ("visual" in roles and key.lower() in PICTURES):
        return True
    return bool(theirs) and not theirs & {"data", "reflectance", *PICTURES} and not _bands(asset)


def _bands(asset: Asset) -> list[dict[str, Any]]:
    """What the asset tells of its bands: in STAC 1.1 in one list, before in two."""
    told = asset.extra_fields.get("bands") or asset.extra_fields.get("eo:bands")
    return told or asset.extra_fields.get("raster:bands") or []


def _nodata(asset: Asset) -> float | None:
    """The nodata value that all bands of the asset are told to have: a number, or "nan", "inf", "-inf"."""
    extra = asset.extra_fields
    bands = extra.get("raster:bands") or extra.get("bands") or []
    told = {str(band.get("nodata", extra.get("nodata"))) for band in bands} or {str(extra.get("nodata"))}
    try:
        return float(told.pop()) if len(told) == 1 else None
    except ValueError:
        return None


def _common(band: dict[str, Any]) -> str:
    return str(band.get("eo:common_name") or band.get("common_name") or "")


def _own_names(key: str, asset: Asset) -> tuple[str, ...]:
    """The sensor's names of the bands, which tell bands of one colour apart; else the key."""
    return tuple(str(band.get("name") or _common(band)) or key for band in _bands(asset)) or (key,)


def _names(assets: dict[str, Asset]) -> tuple[tuple[str, ...], ...]:
    """Names of each asset's bands; () where the header has to tell them."""
    borne = Counter(_common(band) for asset in assets.values() for band in _bands(asset))
    return tuple(_asset_names(key, asset, borne, alone=len(assets) == 1) for key, asset in assets.items())


def _asset_names(key: str, asset: Asset, borne: Counter[str], *, alone: bool) -> tuple[str, ...]:
    """The common name where no other band bears it, else the sensor's, else the asset's key."""
    bands = _bands(asset)
    shared = [borne[_common(band)] > 1 for band in bands]
    names = [
        str((not twice and _common(band)) or band.get("name") or _common(band))
        for band, twice in zip(bands, shared, strict=True)
    ]
    if len(bands) == 1 or (not bands and not alone):
        return (next(filter(None, names), key),)
    return tuple(names) if all(names) and len(set(names)) == len(names) else ()
