"""Open rasters to read: local files, URLs, and subdatasets of containers such as NetCDF."""

from __future__ import annotations

import errno
import os
import re
import threading
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.env import getenv, hasenv
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from geopsp.core.documents import DocumentError, open_regular
from geopsp.core.paths import describe_bad_input, gdal_path, is_local, is_remote
from geopsp.core.text import format_error
from geopsp.core.time_limit import is_set_by_user, limit_servers, server_options
from geopsp.errors import GeopspError, InputNotFoundError, RasterError

# `read_info` raises an error instead. Set for good, because temporary filters are not thread-safe.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)


RASTER_ENDINGS = {".tif", ".tiff", ".vrt", ".jp2", ".img", ".png", ".jpg", ".jpeg"}
"""Endings of the files that are taken from a folder; a file named by itself may have any."""


REMOTE_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "VSI_CACHE": "TRUE",
}
"""GDAL's options for remote files: no folder listings, few range requests, retries when a server is busy."""


GDAL_ERRORS = (RasterioError, CPLE_BaseError, CRSError, UnicodeDecodeError)
"""What rasterio raises of damaged files: the last where a text, a CRS or GDAL's own message is not UTF-8."""


MAX_OPEN = 64
"""Most files that a thread keeps open; systems commonly allow 1024 per process."""


TOO_MANY = (
    "This process has as many files open as the system allows. Raise the limit (ulimit -n 4096) or use fewer workers."
)


def gdal_env(name: str | Path) -> AbstractContextManager[object]:
    """Return the rasterio environment to open and read a file in; options that the user set for GDAL stay."""
    if not is_remote(name):
        return nullcontext()
    in_env = getenv() if hasenv() else {}
    options = REMOTE_OPTIONS | server_options()
    env: AbstractContextManager[object] = rasterio.Env(
        **{name: value for name, value in options.items() if name not in in_env and not is_set_by_user(name)}
    )
    return env


def open_raster(name: str | Path) -> rasterio.DatasetReader:
    """Open a raster to read.

    Raises:
        InputNotFoundError: if the file does not exist.
        RasterError: if it is not a raster, or cannot be downloaded.
    """
    if problem := describe_bad_input(name):
        raise RasterError(problem)
    limit_servers()
    if is_local(name) and not os.path.exists(name):  # noqa: PTH110 (False for a name that is too long)
        raise InputNotFoundError(f"No such file: {name}. Check the path.")
    try:
        with gdal_env(name):
            return rasterio.open(gdal_path(name))
    except GDAL_ERRORS as error:
        raise _open_error(name, error) from error


def read_tags(dataset: Any, band: int = 0, **options: Any) -> dict[str, str]:
    """Return the tags of a dataset or a band, as `dataset.tags()`; {} if they are not UTF-8."""
    try:
        return dict(dataset.tags(band, **options))
    except UnicodeDecodeError:
        return {}


def band_texts(dataset: Any) -> tuple[str | None, ...]:
    """Return the descriptions of all bands; None for those without one, and for all if one is not UTF-8."""
    try:
        return tuple(dataset.descriptions)
    except UnicodeDecodeError:
        return (None,) * int(dataset.count)


CHIP_FORMATS = {
    b"II*\0": "GTiff", b"MM\0*": "GTiff", b"II+\0": "GTiff", b"MM\0+": "GTiff",
    b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"<MRF": "MRF",
}  # fmt: skip
"""GDAL's drivers of the chips that geopsp and ArcGIS write, by the first bytes; others could refer to a network."""


MAX_CHIP_VALUES = 2**28
"""Pixels times bands of a chip; a file with more, 16,000 pixels wide, is damaged."""


@contextmanager
def open_chip(path: str | Path) -> Iterator[rasterio.DatasetReader]:
    """Open a file of a chip folder to read in the block; nothing is read over a network.

    Raises:
        OSError, DocumentError: if it is no regular file of these formats, or cannot be read, also in the block.
    """
    with open_regular(path) as file:
        start = file.read(4)
    driver = next((driver for first, driver in CHIP_FORMATS.items() if start.startswith(first)), None)
    if driver is None:
        raise DocumentError("it is no TIFF, PNG, JPEG or MRF file")
    # in a folder of thousands of files, listing them takes longer than looking for each sidecar file
    options = {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE", "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": "none"}
    try:
        with rasterio.Env(**options), rasterio.open(gdal_path(path), driver=driver) as dataset:
            if dataset.count * dataset.height * dataset.width > MAX_CHIP_VALUES:
                size = f"{dataset.count:,} x {dataset.height:,} x {dataset.width:,}"
                raise DocumentError(f"it has {size} pixels (bands x rows x columns), too many for a chip")
            yield dataset
    except GDAL_ERRORS as error:
        raise DocumentError(format_error(error)) from error


class OpenDatasets:
    """Datasets that one thread holds open for one owner.

    If a thread has more than MAX_OPEN open, over all owners, the least recently used one is closed.
    """

    def __init__(self) -> None:
        self._open: dict[Hashable, Any] = {}

    def get(self, key: Hashable, open_dataset: Callable[[], Any]) -> Any:
        """Return the dataset with this key, opened if need be."""
        recent = _RECENT.datasets
        entry = (id(self), key)
        if key in self._open:
            recent.move_to_end(entry)
            return self._open[key]
        while len(recent) >= MAX_OPEN:
            (_, oldest_key), reference = recent.popitem(last=False)
            owner = reference()
            if owner is not None:
                owner.close(oldest_key)
        self._open[key] = open_dataset()
        recent[entry] = weakref.ref(self)
        return self._open[key]

    def close(self, key: Hashable) -> None:
        """Close the dataset with this key."""
        self._open.pop(key).close()


class _Recent(threading.local):
    """The datasets that this thread has open, the most recently used last; their owners may be gone."""

    def __init__(self) -> None:
        self.datasets: OrderedDict[tuple[int, Hashable], weakref.ref[OpenDatasets]] = OrderedDict()


_RECENT = _Recent()


def _too_many_open(name: str | Path, error: Exception) -> bool:
    """Return True if this process can open no more files; GDAL does not always report that."""
    try:
        if is_local(name):
            Path(name).open("rb").close()
    except OSError as reason:
        return reason.errno in {errno.EMFILE, errno.ENFILE}
    return os.strerror(errno.EMFILE) in str(error)


def _open_error(name: str | Path, error: Exception) -> GeopspError:
    if _too_many_open(name, error):
        return RasterError(f"Cannot open {name}. {TOO_MANY}")
    reason = format_error(error)
    if not is_remote(name):
        return RasterError(f"Cannot read {name} as a raster: {reason}. Use a format of GDAL, such as GeoTIFF.")
    if re.search(r"response code: 404|does not exist", reason):
        return InputNotFoundError(f"No such file: {name} ({reason}). Check the address and the access rights.")
    return RasterError(
        f"Cannot download {name}: {reason}. Check the address and the connection, or download the file first."
    )


def _missing_sources(name: str | Path) -> list[str]:
    """Return the local files that a VRT, or one that it refers to, is read from, and that do not exist."""
    missing: dict[str, None] = {}
    todo, seen = [str(name)], {str(name)}
    while todo:
        path = todo.pop()
        if not is_local(path):
            continue
        if not Path(path).exists():
            missing[path] = None
        elif path.lower().endswith(".vrt"):
            with suppress(*GDAL_ERRORS), rasterio.open(path) as dataset:
                todo += sorted(set(dataset.files) - seen)
                seen |= set(dataset.files)
    return list(missing)


def read_error(name: str | Path, area: Window, error: Exception) -> RasterError:
    """Return the error for a file that opened, but whose pixels in the area cannot be read."""
    advice = "The file is truncated or damaged. Download or export it again."
    missing = _missing_sources(name)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        return RasterError(
            f"Cannot read {name}, because {missing[0]}{more}, which it refers to, does not exist. Restore the file, or "
            "make the VRT again without it."
        )
    if _too_many_open(name, error):
        advice = TOO_MANY
    elif is_remote(name):
        advice = "The connection broke or the server refused. Try again, or download the file first."
    reason = format_error(error)
    return RasterError(
        f"Cannot read {name} at columns {area.col_off} to {area.col_off + area.width}, rows {area.row_off} to "
        f"{area.row_off + area.height}: {reason}. {advice}"
    )
