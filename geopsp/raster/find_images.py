"""The images that a user names: files, globs, folders, URLs, one file a band, STAC Items; and their order."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from geopsp.core.paths import is_local
from geopsp.errors import InputNotFoundError, OptionError, RasterError
from geopsp.raster.band_files import SourceImage, group_band_files, named_bands
from geopsp.raster.open import RASTER_ENDINGS, open_raster
from geopsp.raster.stac import ENDINGS, read_items

Images = (
    str
    | Path
    | SourceImage
    | Mapping[str, str | Path]
    | Sequence["str | Path | SourceImage | Mapping[str, str | Path]"]
)
"""A path, a glob, a folder, a URL, a STAC Item or ItemCollection file, files by the names of their bands; or more."""


DATE = re.compile(r"(?<!\d)(\d{8})(?:T(\d{6}))?(?!\d)")


def find_images(images: Images, *, order: str = "given") -> list[SourceImage]:
    """The images, the one first that shall lie on top.

    Files of one band each, named alike but for the band (`..._B02.tif`, `..._B03.tif`), make one image.

    Args:
        images: What the user named.
        order: "given"; "newest" or "oldest" by STAC's datetime, else the date in the file's name, else a tag; or a
            property of STAC Items or a tag of files: ascending, with "-" before it descending.

    Raises:
        InputNotFoundError: if one of them names no file.
        RasterError: if a STAC file has no imagery.
        OptionError: if an image is none of these, or does not tell what the order asks.
    """
    given: Any = images  # of whatever type
    alone = isinstance(given, str | Path | SourceImage | Mapping) or not isinstance(given, Iterable)
    items = [given] if alone else list(given)
    wrong = [item for item in items if not isinstance(item, str | Path | SourceImage | Mapping)]
    if wrong:
        raise OptionError(
            f"An image is given as {wrong[0]!r}; needed a path, a glob, a folder, a URL, a STAC file, or files by "
            "the names of their bands."
        )
    if not items:
        raise InputNotFoundError("No image was given; needed at least one raster file.")
    return _ordered(list(_expand(items)), order)


def _expand(items: Sequence[str | Path | SourceImage | Mapping[str, str | Path]]) -> Iterator[SourceImage]:
    """The images of each item; files named one after another are looked at together, as a shell expands globs so."""
    files: list[Path] = []
    for item in items:
        if isinstance(item, str | Path) and _is_raster_file(item):
            files.append(Path(item))
            continue
        yield from group_band_files(files)
        files = []
        yield from _images(item)
    yield from group_band_files(files)


def _is_raster_file(item: str | Path) -> bool:
    return is_local(item) and Path(item).is_file() and Path(item).suffix.lower() not in ENDINGS


def _images(item: str | Path | SourceImage | Mapping[str, str | Path]) -> list[SourceImage]:
    if isinstance(item, SourceImage):
        return [item]
    if isinstance(item, Mapping):
        if not item:
            raise InputNotFoundError("A mapping of bands to files is empty; needed at least one band.")
        return [named_bands(item)]
    if not is_local(item):
        return [_remote_image(str(item))]
    found = _files(item)
    lists = [path for path in found if path.suffix.lower() in ENDINGS]
    rasters = [path for path in found if path not in lists]
    return [*group_band_files(rasters), *(image for path in lists for image in read_items(path))]


def _remote_image(name: str) -> SourceImage:
    if Path(name.partition("?")[0]).suffix.lower() in ENDINGS:
        raise RasterError(f"{name} is a STAC file far away; needed one on disk. Fetch it, then name the file.")
    return SourceImage(name, (name,))


def _files(item: str | Path) -> list[Path]:
    path = Path(item)
    if path.is_dir():
        products = [path] if _is_product(path) else sorted(p for p in path.iterdir() if _is_product(p))
        inside = [p for product in products for p in sorted(product.glob("GRANULE/*/IMG_DATA/**/*"))]
        found = [p for p in (*sorted(path.iterdir()), *inside) if _is_raster_name(p.name) and p.is_file()]
    elif path.exists():
        found = [path]
    else:
        matching = map(Path, glob.glob(str(item), recursive=True))  # noqa: PTH207 (patterns may be absolute)
        found = sorted(path for path in matching if path.is_file())
    if not found:
        raise InputNotFoundError(f"No raster found at {item}: no such file, and nothing matches it. Check the path.")
    return found


def _is_raster_name(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in RASTER_ENDINGS


def _is_product(path: Path) -> bool:
    """True for a Sentinel-2 product as it comes: the bands lie folders below."""
    return path.suffix.upper() == ".SAFE" and path.is_dir()


def _ordered(images: list[SourceImage], order: str) -> list[SourceImage]:
    if order == "given":
        return images
    if order in {"newest", "oldest"}:
        times = [_when(image) for image in images]
        images = [replace(image, when=when) for image, when in zip(images, times, strict=True)]
        return _sorted(images, times, descending=order == "newest")
    told = [_told(image, order.removeprefix("-")) for image in images]
    keys: list[Any]
    try:
        keys = [float(value) for value in told]
    except (TypeError, ValueError):
        keys = [str(value) for value in told]
    return _sorted(images, keys, descending=order.startswith("-"))


def _sorted(images: Sequence[SourceImage], keys: Sequence[Any], *, descending: bool) -> list[SourceImage]:
    """By key; images with one key stay in the order given."""
    return [images[rank] for rank in sorted(range(len(images)), key=keys.__getitem__, reverse=descending)]


def _when(image: SourceImage) -> datetime:
    """When an image was taken, in UTC: as STAC says, else the file's name, else a tag; tags often tell of an export."""
    found = image.when or _date_in_name(image.name)
    if found is None:
        with open_raster(image.files[0]) as dataset:
            text = dataset.tags(ns="IMAGERY").get("ACQUISITIONDATETIME") or dataset.tags().get("ACQUISITIONDATETIME")
            found = _date(text) or _date(dataset.tags().get("TIFFTAG_DATETIME"))
    if found is None:
        raise OptionError(
            f"{image.name} does not tell when it was taken: neither a STAC datetime, a date in its name (20240131) nor "
            "a tag (ACQUISITIONDATETIME, TIFFTAG_DATETIME). Give the images in the order wanted, and "
            "order='given'."
        )
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _date(text: str | None) -> datetime | None:
    """The time a tag tells, as TIFF (2024:01:31 12:00:00) or ISO 8601 writes it."""
    try:
        return datetime.fromisoformat(re.sub(r"^(\d{4}):(\d\d):(\d\d)", r"\1-\2-\3", (text or "").strip()))
    except ValueError:
        return None


def _date_in_name(name: str) -> datetime | None:
    """The first eight digits in a file's name that make a date of 1950 or later."""
    for day, time in DATE.findall(Path(name).name):
        try:
            found = datetime.strptime(day + (time or "000000"), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        except ValueError:
            continue
        if 1950 <= found.year < 2100:
            return found
    return None


def _told(image: SourceImage, name: str) -> Any:
    """The property or tag of that name."""
    if name in image.properties:
        return image.properties[name]
    with open_raster(image.files[0]) as dataset:
        tags = dataset.tags() | dataset.tags(1) if dataset.count else dataset.tags()
    if name not in tags:
        known = ", ".join(sorted({*image.properties, *tags})) or "nothing"
        raise OptionError(f"{image.name} has no property or tag {name!r} to order by; it tells {known}.")
    return tags[name]
