"""Images listed by a STAC file (SpatioTemporal Asset Catalog): an Item, or the ItemCollection that a search returns."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from geopsp.core.documents import read_json
from geopsp.core.paths import is_local
from geopsp.core.pixel_values import BandScale, valid_scale
from geopsp.core.schema import Schema, Text, require_fit
from geopsp.errors import RasterError
from geopsp.raster.band_files import is_ancillary
from geopsp.raster.open import RASTER_ENDINGS
from geopsp.raster.source_image import SourceImage

if TYPE_CHECKING:
    from pystac import Asset, Item

ENDINGS = {".json", ".geojson"}
"""Endings of STAC files."""


RASTER_TYPES = ("image/tiff", "image/vnd.stac.geotiff", "image/jp2", "application/x-geotiff")
"""Media types of assets that are rasters begin with one of these."""


PREVIEWS = {"visual", "overview", "thumbnail"}
"""Roles and keys of pictures made from the bands."""


NO_BANDS = PREVIEWS | {
    "metadata", "cloud", "cloud-shadow", "data-mask", "snow-ice", "water-mask", "land-water", "saturation", "date",
    "sun-azimuth", "sun-zenith", "azimuth", "incidence-angle", "iso19115", "index",
}  # fmt: skip
"""Roles of assets that are no imagery."""


OFFSET_APPLIED = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
"""Properties that say, where True, that pixels contain no offset any more, whatever the bands say."""


Bands = list[dict[str, Any]]


class AssetEntry(Schema):
    """An asset: what is read of it; other fields may be of any type."""

    href: Text
    type: Text | None = None
    roles: list[Text] | None = None
    bands: Bands | None = None
    eo_bands: Bands | None = Field(None, alias="eo:bands")
    raster_bands: Bands | None = Field(None, alias="raster:bands")


class ItemEntry(Schema):
    """A STAC Item."""

    id: Text
    assets: dict[str, AssetEntry]
    properties: dict[str, Any]


class ItemCollectionEntry(Schema):
    """A FeatureCollection of Items."""

    features: list[ItemEntry]


def find(item: Any) -> list[SourceImage] | None:
    """Return the images of a STAC file; None for anything else.

    Raises:
        RasterError: if the file is remote, no STAC file, or has no imagery.
    """
    if not isinstance(item, str | Path):
        return None
    if is_local(item):
        path = Path(item)
        return read_items(path) if path.suffix.lower() in ENDINGS and path.is_file() else None
    if Path(str(item).partition("?")[0]).suffix.lower() in ENDINGS:
        raise RasterError(f"{item} is a remote STAC file. Download it, then name the local file.")
    return None


def read_items(path: Path) -> list[SourceImage]:
    """Read the images of an Item or ItemCollection file, one per Item.

    Raises:
        RasterError: if it is neither, or an Item has no asset with imagery.
    """
    from pystac import Item, ItemCollection
    from pystac.errors import STACError, STACTypeError

    needed = "It must be a STAC Item or ItemCollection (a FeatureCollection of Items)."
    try:
        content = read_json(path)
        kind = content.get("type") if isinstance(content, dict) else type(content).__name__
        if kind in {"Catalog", "Collection"}:
            raise RasterError(f"{path} is a STAC {kind}, which lists no pixels. {needed} Save a search, or name Items.")
        if kind == "Feature":
            require_fit(content, ItemEntry)
            items = [Item.from_dict(content)]
        elif kind == "FeatureCollection":
            require_fit(content, ItemCollectionEntry)
            items = list(ItemCollection.from_dict(content))
        else:
            raise RasterError(f"{path} has the type {kind}. {needed}")
    except (STACError, STACTypeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RasterError(f"{path} is no STAC file ({type(error).__name__}: {error}). {needed}") from error
    if not items:
        raise RasterError(f"{path} lists no Item. Widen the search that it comes from.")
    return [_image(item, path) for item in items]


def _image(item: Item, path: Path) -> SourceImage:
    address = next((str(link.target) for link in item.get_links("self") if not is_local(str(link.target))), None)
    item.remove_links("self")  # relative links count from the file that was given
    item.set_self_href(str(path.resolve()))
    assets = _imagery(item, path)
    files = tuple(str(asset.get_absolute_href()) for asset in assets.values())
    unused = sorted(set(item.assets) - set(assets))
    offset_applied = any(item.properties.get(name) is True for name in OFFSET_APPLIED)
    notes = (f"assets of {item.id} that are read: {', '.join(assets)}; not used: {', '.join(unused)}",)
    return SourceImage(
        item.id,
        files,
        bands=_band_names(assets),
        acquired=item.datetime or item.common_metadata.start_datetime,
        properties=item.properties,
        nodata=tuple(_nodata(asset) for asset in assets.values()),
        stac_item=address or str(path.resolve()),
        scales=tuple(_scales(asset, offset_applied=offset_applied) for asset in assets.values()),
        notes=notes if unused else (),
    )


def _imagery(item: Item, path: Path) -> dict[str, Asset]:
    """Return the assets with imagery, each band once; a preview only if there is nothing else."""
    rasters = {key: asset for key, asset in item.assets.items() if _is_raster(asset)}
    imagery = {key: asset for key, asset in rasters.items() if not _is_ancillary(key, asset, NO_BANDS)}
    if not imagery:
        imagery = {key: asset for key, asset in rasters.items() if not _is_ancillary(key, asset, NO_BANDS - PREVIEWS)}
        imagery = dict(list(imagery.items())[:1])
    if not imagery:
        raise RasterError(
            f"{item.id} in {path} has no asset with imagery. Its assets: {', '.join(item.assets) or 'none'}. One of "
            "them must have the role 'data' or bands, as GeoTIFF or JPEG 2000."
        )
    chosen: dict[tuple[str, ...], str] = {}
    for key in sorted(imagery, key=lambda key: "tif" not in (imagery[key].media_type or imagery[key].href)):
        chosen.setdefault(_sensor_names(key, imagery[key]), key)
    return {key: imagery[key] for key in imagery if key in chosen.values()}


def _is_raster(asset: Asset) -> bool:
    media_type = (asset.media_type or "").lower()
    if not media_type:
        return Path(asset.href.split("?")[0]).suffix.lower() in RASTER_ENDINGS - {".png", ".jpg", ".jpeg"}
    return media_type.startswith(RASTER_TYPES)


def _is_ancillary(key: str, asset: Asset, roles: set[str]) -> bool:
    """Return True for an asset with one of the roles, or another sign that it is no imagery."""
    asset_roles = set(asset.roles or ())
    if asset_roles & roles or is_ancillary(key) or ("visual" in roles and key.lower() in PREVIEWS):
        return True
    return bool(asset_roles) and not asset_roles & {"data", "reflectance", *PREVIEWS} and not _bands(asset)


def _bands(asset: Asset) -> list[dict[str, Any]]:
    """Return the metadata of the asset's bands: one list in STAC 1.1, two before."""
    bands = asset.extra_fields.get("bands") or asset.extra_fields.get("eo:bands")
    return bands or asset.extra_fields.get("raster:bands") or []


def _nodata(asset: Asset) -> float | None:
    """Return the nodata value that all bands of the asset share: a number, or "nan", "inf" or "-inf"."""
    extra = asset.extra_fields
    bands = extra.get("raster:bands") or extra.get("bands") or []
    values = {str(band.get("nodata", extra.get("nodata"))) for band in bands} or {str(extra.get("nodata"))}
    try:
        return float(values.pop()) if len(values) == 1 else None
    except ValueError:
        return None


def _scales(asset: Asset, *, offset_applied: bool) -> tuple[BandScale | None, ...]:
    """Return scale and offset of each band; () if no band has any.

    Source: STAC's raster extension, and since STAC 1.1 the same names in `bands`, or for all bands in the asset.
    """
    extra = asset.extra_fields
    scales: list[BandScale | None] = []
    bands: list[dict[str, Any]] = extra.get("raster:bands") or extra.get("bands") or [{}]
    for band in bands:
        fields = {name.removeprefix("raster:"): value for name, value in {**extra, **band}.items()}
        try:
            scales.append(valid_scale(fields.get("scale", 1), 0 if offset_applied else fields.get("offset", 0)))
        except (TypeError, ValueError):
            scales.append(None)
    return tuple(scales) if any(scales) else ()


def _common_name(band: dict[str, Any]) -> str:
    return str(band.get("eo:common_name") or band.get("common_name") or "")


def _sensor_names(key: str, asset: Asset) -> tuple[str, ...]:
    """Return the sensor's band names, which differ even between bands of one colour; else the asset's key."""
    return tuple(str(band.get("name") or _common_name(band)) or key for band in _bands(asset)) or (key,)


def _band_names(assets: dict[str, Asset]) -> tuple[tuple[str, ...], ...]:
    """Return band names per asset; () where the header of the file must give them."""
    counts = Counter(_common_name(band) for asset in assets.values() for band in _bands(asset))
    return tuple(_asset_names(key, asset, counts, alone=len(assets) == 1) for key, asset in assets.items())


def _asset_names(key: str, asset: Asset, counts: Counter[str], *, alone: bool) -> tuple[str, ...]:
    """Return common names where they are unique, else the sensor's names, else the asset's key."""
    bands = _bands(asset)
    unique = [counts[_common_name(band)] <= 1 for band in bands]
    names = [
        str((is_unique and _common_name(band)) or band.get("name") or _common_name(band))
        for band, is_unique in zip(bands, unique, strict=True)
    ]
    if len(bands) == 1 or (not bands and not alone):
        return (next(filter(None, names), key),)
    return tuple(names) if all(names) and len(set(names)) == len(names) else ()
