"""Local files, URLs and /vsi paths; what identifies a file (size, time of change)."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from geopsp.core.addresses import remote_address, with_query

COMPANION_ENDINGS = {
    ".shp": {".dbf", ".shx", ".prj", ".cpg"}, ".tab": {".dat", ".map", ".id"}, ".mif": {".mid"},
}  # fmt: skip
"""Endings of the files that belong to a vector file, by its ending."""


VSI_PREFIXES = {
    "http": "/vsicurl/http://",
    "https": "/vsicurl/https://",
    "s3": "/vsis3/",
    "gs": "/vsigs/",
    "az": "/vsiaz/",
}
"""GDAL's prefix for each scheme of a URL."""


SUBDATASET = r"(?i:netcdf|hdf[45]\w*|gtiff_(?:dir|raw|off)|zarr|nitf_im|sentinel2_\w+|bag|s1\d\d|derived_subdataset):"
"""Beginning of the names of rasters inside a file; rasterio prints `netcdf:`, GDAL `NETCDF:`, and both work."""


def is_url_or_vsi(path: str) -> bool:
    """True for a URL or a path of GDAL's own, e.g. into an archive."""
    return path.startswith("/vsi") or "://" in path


def is_local(name: str | Path) -> bool:
    """True for a path in the file system, as against a URL, a /vsi path or a subdataset."""
    if isinstance(name, Path):
        return remote_address(name) is None
    return not re.match(rf"[A-Za-z][\w+.-]+://|/vsi|[A-Z][A-Z0-9_]+:|{SUBDATASET}", name) or Path(name).exists()


def is_subdataset(name: str | Path) -> bool:
    """True for the name of a raster inside a file, such as netcdf:FILE:VARIABLE."""
    return not is_local(name) and re.match(SUBDATASET, str(name)) is not None


def is_remote(name: str | Path) -> bool:
    """True if reading goes over a network."""
    return not is_local(name) and re.search(r"/vsi(curl|s3|gs|az|adls|oss|swift)", gdal_path(name)) is not None


def gdal_path(name: str | Path) -> str:
    """Return the name that GDAL opens: `https://...` becomes `/vsicurl/https://...`; other names stay.

    A local file such as `zip:a.tif` becomes `./zip:a.tif`, which is no URL.
    """
    text = str(name)
    if isinstance(name, Path):
        address = remote_address(name)
        text = with_query(address) if address else text
    if ":" in text.partition("/")[0] and not Path(text).is_absolute() and Path(text).exists():
        return f"./{text}"
    scheme, separator, rest = text.partition("://")
    if not separator:
        return text
    if scheme.lower() == "file":
        return url2pathname(urlsplit(text).path)
    return VSI_PREFIXES[scheme.lower()] + rest if scheme.lower() in VSI_PREFIXES else text


def describe_bad_name(name: str | Path) -> str | None:
    """Say what is wrong with a path that is not in UTF-8, which GDAL cannot open; None for other paths."""
    path = str(Path(name).absolute())
    try:
        path.encode()
    except UnicodeEncodeError:
        shown = path.encode(errors="backslashreplace").decode()
        return f"The path {shown} is not in UTF-8 (perhaps in Latin-1), but must be. Rename the file or folder."
    return None


def describe_bad_input(name: str | Path) -> str | None:
    """Say what is wrong with the path of an input, as `describe_bad_name`; reading a pipe or a device may never end."""
    path = Path(name)
    if problem := describe_bad_name(name):
        return problem
    if is_local(name) and path.exists() and not (path.is_file() or path.is_dir()):
        return f"{name} is a pipe, a device or a socket, but must be a file. Copy what it gives into a file first."
    return None


def file_size(path: str) -> int | None:
    """Return the bytes of a folder, or of a file and its companions; None for a URL or a /vsi path."""
    return None if is_url_or_vsi(path) else sum(file.stat().st_size for file in _with_companions(Path(path)))


def file_fingerprint(path: str, layer: str) -> list[str]:
    """Return path and layer, and size and time of the file (or the archive around it) and of its companions."""
    local = local_file(path)
    if local is None:
        return [path, layer]
    stats = [(file, file.stat()) for file in _with_companions(local)]
    return [path if is_url_or_vsi(path) else str(local.resolve()), layer] + [
        f"{file.relative_to(local.parent)} {stat.st_size} {stat.st_mtime_ns}" for file, stat in stats
    ]


def local_file(path: str) -> Path | None:
    """Return the local file or folder that a path reads from, e.g. the archive around it; None if there is none."""
    text = re.sub(r"^(/vsi(zip|tar|gzip|7z|rar)/|[a-z+]*(zip|tar|gzip|file)://)+", "", path)
    inner = Path(re.sub(r"[{}]", "", text.partition("!")[0]) if text != path else text)
    return next((found for found in (inner, *inner.parents) if found.name and found.exists()), None)


def _with_companions(path: Path) -> list[Path]:
    """Return all files of a folder; or a file, its companions and its write-ahead log."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file() and file.suffix != ".lock")
    endings = COMPANION_ENDINGS.get(path.suffix.lower(), ())
    companions = sorted(
        file for file in path.parent.glob(f"{glob.escape(path.stem)}.*") if file.suffix.lower() in endings
    )
    log = path.with_name(path.name + "-wal")
    has_log = os.path.exists(log) and log.stat().st_size > 0  # noqa: PTH110 (False for a name that is too long)
    return [path, *companions, *([log] if has_log else [])]
