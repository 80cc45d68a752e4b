"""Local files, URLs and paths into archives; what identifies a file."""

from __future__ import annotations

import glob
import re
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

BESIDE = {".shp": {".dbf", ".shx", ".prj", ".cpg"}, ".tab": {".dat", ".map", ".id"}, ".mif": {".mid"}}
"""Endings of files that belong to a vector file."""


def remote(path: str) -> bool:
    """True of a URL or a path of GDAL's own, e.g. into an archive."""
    return path.startswith("/vsi") or "://" in path


def file_size(path: str) -> int | None:
    """Bytes of a file with all that belongs to it, or of a folder; None if it is remote."""
    return None if remote(path) else sum(part.stat().st_size for part in _belonging(Path(path)))


def file_fingerprint(path: str, layer: str) -> list[str]:
    """Path and layer, and size and time of the file, or of the archive it lies in, and of those that belong to it."""
    place = local_file(path)
    if place is None:
        return [path, layer]
    parts = [(part, part.stat()) for part in _belonging(place)]
    return [path if remote(path) else str(place.resolve()), layer] + [
        f"{part.relative_to(place.parent)} {about.st_size} {about.st_mtime_ns}" for part, about in parts
    ]


def local_file(path: str) -> Path | None:
    """The file or folder on this machine that is read, e.g. the archive of a path into it; None: there is none."""
    text = re.sub(r"^(/vsi(zip|tar|gzip|7z|rar)/|[a-z+]*(zip|tar|gzip|file)://)+", "", path)
    place = Path(re.sub(r"[{}]", "", text.partition("!")[0]) if text != path else text)
    return next((found for found in (place, *place.parents) if found.name and found.exists()), None)


def _belonging(place: Path) -> list[Path]:
    """The file and what tells of its features beside it: the files of a folder, of a shapefile, a write-ahead log."""
    if place.is_dir():
        return sorted(part for part in place.rglob("*") if part.is_file() and part.suffix != ".lock")
    endings = BESIDE.get(place.suffix.lower(), ())
    beside = sorted(
        part for part in place.parent.glob(f"{glob.escape(place.stem)}.*") if part.suffix.lower() in endings
    )
    log = place.with_name(place.name + "-wal")
    return [place, *beside, *([log] if log.exists() and log.stat().st_size else [])]


VSI_PREFIXES = {
    "http": "/vsicurl/http://",
    "https": "/vsicurl/https://",
    "s3": "/vsis3/",
    "gs": "/vsigs/",
    "az": "/vsiaz/",
}
"""What GDAL calls the places that a URL's scheme names."""


def is_local(name: str | Path) -> bool:
    """True if the name is a path of this machine's file system, as against a URL, a /vsi path or a subdataset."""
    if isinstance(name, Path):
        return True
    return not re.match(r"[A-Za-z][\w+.-]+://|/vsi|[A-Z][A-Z0-9_]+:", name) or Path(name).exists()


def is_remote(name: str | Path) -> bool:
    """True if reading it goes over a network."""
    return not is_local(name) and re.search(r"/vsi(curl|s3|gs|az|adls|oss|swift)", gdal_path(name)) is not None


def gdal_path(name: str | Path) -> str:
    """The name as GDAL takes it: `https://...` becomes `/vsicurl/https://...`; what is no URL stays as it is."""
    text = str(name)
    scheme, there, rest = text.partition("://")
    if isinstance(name, Path) or not there:
        return text
    if scheme.lower() == "file":
        return url2pathname(urlsplit(text).path)
    return VSI_PREFIXES[scheme.lower()] + rest if scheme.lower() in VSI_PREFIXES else text
