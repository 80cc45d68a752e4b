"""Raster files opened to read: on disk, behind a URL, or inside a container such as NetCDF."""

from __future__ import annotations

import errno
import os
import re
import threading
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import rasterio
from rasterio.env import getenv, hasenv
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.windows import Window

from geopsp.core.paths import gdal_path, is_local, is_remote
from geopsp.errors import GeopspError, InputNotFoundError, RasterError

# `describe` says so in errors. For good, as a filter that is set for a while is not safe among threads.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)


RASTER_ENDINGS = {".tif", ".tiff", ".vrt", ".jp2", ".img", ".png", ".jpg", ".jpeg"}


REMOTE_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_CONNECTTIMEOUT": "15",
    "GDAL_HTTP_TIMEOUT": "120",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "VSI_CACHE": "TRUE",
}
"""GDAL's options for files far away: no listing of folders, ranges in few requests, patience with a busy server."""


MAX_OPEN = 64
"""So many files a thread keeps open at most: systems commonly allow 1024 to all of them together."""


TOO_MANY = (
    "this process has as many files open as the system allows. Allow more (ulimit -n 4096), or use fewer workers."
)


def gdal_env(name: str | Path) -> AbstractContextManager[object]:
    """The surroundings in which a file is opened and read; what the user set for GDAL is left as it is."""
    if not is_remote(name):
        return nullcontext()
    theirs = set(getenv() if hasenv() else ()) | set(os.environ)
    surroundings: AbstractContextManager[object] = rasterio.Env(
        **{option: value for option, value in REMOTE_OPTIONS.items() if option not in theirs}
    )
    return surroundings


def open_raster(name: str | Path) -> rasterio.DatasetReader:
    """The dataset, opened to read.

    Raises:
        InputNotFoundError: if there is no such file.
        RasterError: if it is not a raster, or cannot be fetched.
    """
    if is_local(name) and not Path(name).exists():
        raise InputNotFoundError(f"No such file: {name}. Check the path.")
    try:
        with gdal_env(name):
            return rasterio.open(gdal_path(name))
    except RasterioIOError as error:
        raise _unreadable(name, error) from error


class OpenDatasets:
    """Files that one thread holds open for one owner; over all owners, the one used longest ago is closed first."""

    def __init__(self) -> None:
        self._open: dict[Hashable, Any] = {}

    def get(self, key: Hashable, opened: Callable[[], Any]) -> Any:
        """The dataset known by the key, else one newly opened."""
        order = _RECENT.order
        mine = (id(self), key)
        if key in self._open:
            order.move_to_end(mine)
            return self._open[key]
        while len(order) >= MAX_OPEN:
            (_, oldest), owner = order.popitem(last=False)
            holder = owner()
            if holder is not None:
                holder.close(oldest)
        self._open[key] = opened()
        order[mine] = weakref.ref(self)
        return self._open[key]

    def close(self, key: Hashable) -> None:
        """The dataset known by the key is closed."""
        self._open.pop(key).close()


class _Used(threading.local):
    """Which handles this thread has open, the one used last at the end; their owners may be gone."""

    def __init__(self) -> None:
        self.order: OrderedDict[tuple[int, Hashable], weakref.ref[OpenDatasets]] = OrderedDict()


_RECENT = _Used()


def _is_full(name: str | Path, error: RasterioError) -> bool:
    """True if no more files can be opened; GDAL does not always say so."""
    try:
        if is_local(name):
            Path(name).open("rb").close()
    except OSError as why:
        return why.errno in {errno.EMFILE, errno.ENFILE}
    return os.strerror(errno.EMFILE) in str(error)


def _unreadable(name: str | Path, error: RasterioError) -> GeopspError:
    if _is_full(name, error):
        return RasterError(f"{name} cannot be opened: {TOO_MANY}")
    if not is_remote(name):
        return RasterError(f"{name} cannot be read as a raster ({error}); needed e.g. a GeoTIFF.")
    if re.search(r"response code: 404|does not exist", str(error)):
        return InputNotFoundError(f"There is no file at {name} ({error}). Check the address, and who may read it.")
    return RasterError(
        f"{name} cannot be fetched ({error}). Check the address and the connection, or fetch the file first."
    )


def read_error(name: str | Path, area: Window, error: RasterioError) -> RasterError:
    """The error of a file that opened but gives no pixels in the area."""
    why = "the file is truncated or damaged. Fetch or export it again."
    if _is_full(name, error):
        why = TOO_MANY
    elif is_remote(name):
        why = "the connection broke or the server refused. Try again, or fetch the file first."
    return RasterError(
        f"{name} cannot be read at columns {area.col_off} to {area.col_off + area.width}, rows {area.row_off} to "
        f"{area.row_off + area.height} ({error}): {why}"
    )
