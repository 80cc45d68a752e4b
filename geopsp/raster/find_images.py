"""Find images: what a user names becomes a list of `SourceImage`, in order.

Each kind of source has a finder: a function that takes one item of what the user names and returns its images, or None
if the item is of another kind. A new kind of source is one module with such a function, and one entry in FINDERS.

Items that no finder knows are raster files, or folders and globs of them. Whatever GDAL opens by its name, such as a
URL or a subdataset, needs no finder of its own.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from geopsp.core.addresses import remote_address, with_query
from geopsp.core.argument_names import did_you_mean
from geopsp.core.paths import is_local
from geopsp.errors import InputNotFoundError, OptionError
from geopsp.raster import band_files, stac, zarr_images
from geopsp.raster.acquisition import in_utc, tagged_time
from geopsp.raster.band_files import group_band_files
from geopsp.raster.open import RASTER_ENDINGS, open_raster, read_tags
from geopsp.raster.source_image import SourceImage

Images = (
    str
    | Path
    | SourceImage
    | Mapping[str, str | Path]
    | Sequence["str | Path | SourceImage | Mapping[str, str | Path]"]
)
"""A path, glob, folder or URL; a STAC Item or ItemCollection file; a mapping of band names to files; or several."""

Finder = Callable[[Any], "list[SourceImage] | None"]


def find_given(item: Any) -> list[SourceImage] | None:
    """Return a SourceImage as it is."""
    return [item] if isinstance(item, SourceImage) else None


def find_gdal_name(item: Any) -> list[SourceImage] | None:
    """Return the image of a name that is no local path: a URL, a /vsi path or a subdataset."""
    return [SourceImage(item, (item,))] if isinstance(item, str) and not is_local(item) else None


FINDERS: tuple[Finder, ...] = (find_given, band_files.find, stac.find, zarr_images.find, find_gdal_name)
"""Asked in this order; the first that does not return None decides."""

ORDERS = ("given", "newest", "oldest")
"""Orders of images; any other is the name of a property or tag."""

DATE_IN_NAME = re.compile(r"(?<!\d)(\d{8})(?:T(\d{6}))?(?!\d)")


def find_images(images: Images, *, order: str = "given") -> list[SourceImage]:
    """Find the images, the topmost first.

    Files with one band each whose names differ only in the band (`..._B02.tif`, `..._B03.tif`) make one image.

    Args:
        images: What the user named, see `Images`.
        order: "given"; "newest" or "oldest", by the STAC datetime, else the date in the file name, else a tag; or the
            name of a STAC property or of a tag, ascending, or descending with "-" before it.

    Raises:
        InputNotFoundError: if an item names no file.
        RasterError: if a STAC file has no imagery.
        OptionError: if an item is of no known kind, or an image lacks what the order needs.
    """
    given: Any = images
    single = isinstance(given, str | Path | SourceImage | Mapping) or not isinstance(given, Iterable)
    items = [_named(item) for item in ([given] if single else given)]
    if not items:
        raise InputNotFoundError("No image is given. Name at least one raster file.")
    answers = [(item, _ask_finders(item)) for item in items]
    unknown = [item for item, found in answers if found is None and not isinstance(item, str | Path)]
    if unknown:
        raise OptionError(
            f"An image is given as {unknown[0]!r}, but must be a path, a glob, a folder, a URL, a STAC file or a "
            "mapping of band names to files."
        )
    return _sort_images(list(_expand(answers)), order)


def _named(item: Any) -> Any:
    """Return what is asked for: the address that a path stands for, as text."""
    address = remote_address(item) if isinstance(item, Path) else None
    return item if address is None else with_query(address)


def _ask_finders(item: Any) -> list[SourceImage] | None:
    return next((found for finder in FINDERS if (found := finder(item)) is not None), None)


def _expand(answers: Iterable[tuple[Any, list[SourceImage] | None]]) -> Iterator[SourceImage]:
    """Yield the images of each item; consecutive files are grouped together, as a shell expands globs to such."""
    files: list[Path] = []
    for item, found in answers:
        if found is None and Path(item).is_file():
            files.append(Path(item))
            continue
        yield from group_band_files(files)
        files = []
        yield from _expand_pattern(item) if found is None else found
    yield from group_band_files(files)


def _expand_pattern(pattern: str | Path) -> list[SourceImage]:
    """Return the images in a folder or of a glob: first the raster files, then what finders know."""
    answers = [(path, _ask_finders(path)) for path in list_files(pattern)]
    rasters = [path for path, found in answers if found is None]
    return [*group_band_files(rasters), *(image for _, found in answers for image in found or ())]


def list_files(pattern: str | Path) -> list[Path]:
    """Return the raster files of a folder or a glob, or the file itself.

    Raises:
        InputNotFoundError: if there are none.
    """
    path = Path(pattern)
    if path.is_dir():
        products = [path] if _is_product(path) else sorted(p for p in path.iterdir() if _is_product(p))
        inside = [p for product in products for p in sorted(product.glob("GRANULE/*/IMG_DATA/**/*"))]
        files = [p for p in (*sorted(path.iterdir()), *inside) if _is_raster_name(p.name) and p.is_file()]
        problem = f"the folder has no file that ends in {', '.join(sorted(RASTER_ENDINGS))}"
    elif path.exists():
        return [path]
    else:
        matches = map(Path, glob.glob(str(pattern), recursive=True))  # noqa: PTH207 (patterns may be absolute)
        files = sorted(path for path in matches if path.is_file())
        problem = "no such file or folder, and as a pattern it matches no file"
    if not files:
        raise InputNotFoundError(f"No raster found at {pattern}: {problem}. Check the path.")
    return files


def _is_raster_name(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in RASTER_ENDINGS


def _is_product(path: Path) -> bool:
    """Return True for the folder of a Sentinel-2 product, whose bands lie several folders below."""
    return path.suffix.upper() == ".SAFE" and path.is_dir()


def _sort_images(images: list[SourceImage], order: str) -> list[SourceImage]:
    if order == "given":
        return images
    if order in {"newest", "oldest"}:
        times = [_acquisition_time(image) for image in images]
        images = [replace(image, acquired=time) for image, time in zip(images, times, strict=True)]
        return _sorted_by(images, times, descending=order == "newest")
    values = [_property(image, order.removeprefix("-")) for image in images]
    keys: list[Any]
    try:
        keys = [float(value) for value in values]
    except (TypeError, ValueError):
        keys = [str(value) for value in values]
    return _sorted_by(images, keys, descending=order.startswith("-"))


def _sorted_by(images: Sequence[SourceImage], keys: Sequence[Any], *, descending: bool) -> list[SourceImage]:
    """Sort by key; images with equal keys keep the given order."""
    return [images[i] for i in sorted(range(len(images)), key=keys.__getitem__, reverse=descending)]


def _acquisition_time(image: SourceImage) -> datetime:
    """Return the acquisition time in UTC: from STAC, else the file name, else a tag, which may date an export."""
    found = image.acquired or _date_in_name(image.name)
    if found is None:
        with open_raster(image.files[0]) as dataset:
            found = tagged_time(dataset)
    if found is None:
        raise OptionError(
            f"{image.name} has no acquisition time: no STAC datetime, no date in its name such as 20240131, and no tag "
            "ACQUISITIONDATETIME or TIFFTAG_DATETIME. Give the images in the order you want, and `order='given'`."
        )
    return in_utc(found)


def _date_in_name(name: str) -> datetime | None:
    """Return the first eight digits of a file name that make a date from 1950 to 2099."""
    for day, time in DATE_IN_NAME.findall(Path(name).name):
        try:
            found = datetime.strptime(day + (time or "000000"), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        except ValueError:
            continue
        if 1950 <= found.year < 2100:
            return found
    return None


def _property(image: SourceImage, name: str) -> Any:
    """Return the property or tag with this name."""
    if name in image.properties:
        return image.properties[name]
    with open_raster(image.files[0]) as dataset:
        tags = read_tags(dataset) | read_tags(dataset, 1) if dataset.count else read_tags(dataset)
    if name not in tags:
        known = sorted({*image.properties, *tags})
        raise OptionError(
            f"{image.name} has no property or tag {name!r} to order by.{did_you_mean(name, [*ORDERS, *known])} Those "
            f"it has: {', '.join(known) or 'none'}."
        )
    return tags[name]
