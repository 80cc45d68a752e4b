"""Images that come as one file a band, as Sentinel-2's and Landsat's do.

S2_T32TPT_20230512_B02_10m.jp2 ┐
S2_T32TPT_20230512_B8A_20m.jp2 ├─> S2_T32TPT_20230512, bands B02 and B8A
S2_T32TPT_20230512_SCL_20m.jp2 ┘   (the scene classification is no band)
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.raster.open import open_raster

NUMBERED = r"(?:(?:SR|ST|TOA)_)?(?P<numbered>B(?:8A|\d{1,2})(?:_VCID_\d)?)"


WORDED = r"(?P<worded>red|green|blue|coastal|pan|nir(?:0?[89])?|swir(?:1|2|16|22)?|rededge\d?|VV|VH|HH|HV)"


ANCILLARY = (
    r"(?P<beside>(?:(?:SR|ST)_)?QA\d*(?:_(?:PIXEL|RADSAT|AEROSOL))?|BQA|SCL|AOT|WVP|TCI|PVI|MSK_[A-Z]+|CLD(?:PRB)?|"
    r"SNW(?:PRB)?|[VS][AZ]A|udm2?|fmask|ST_(?:ATRAN|CDIST|DRAD|EMIS|EMSD|TRAD|URAD)|SR_(?:CLOUD|ATMOS)[A-Z_]*)"
)
"""Masks, quality flags and previews that lie beside the bands."""


TOKEN = re.compile(rf"(?:^|[_.-])(?:{NUMBERED}|{WORDED}|{ANCILLARY})(?:_(?P<metres>\d\dm))?(?=$|[_.-])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SourceImage:
    """What a user names as one image: one file, or one a band."""

    name: str
    """What messages and the index of chips call it."""

    files: tuple[str, ...]

    bands: tuple[tuple[str, ...], ...] | None = None
    """The names of each file's bands; None: as the files say."""

    when: datetime | None = None
    """When it was taken, where that was said or had to be found out for the order."""

    properties: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What else is told of it."""

    nodata: tuple[float | None, ...] = ()
    """Each file's nodata value, for bands that the file itself tells none of; (): nothing is told."""

    notes: tuple[str, ...] = ()
    """How it came about, in words."""


def named_bands(files: Mapping[str, str | Path]) -> SourceImage:
    """The image whose bands are files, by name."""
    paths = tuple(str(path) for path in files.values())
    return SourceImage(paths[0], paths, tuple((name,) for name in files))


@dataclass(frozen=True, slots=True)
class BandFileName:
    """A file, and what its name says of it."""

    path: Path

    stem: tuple[Path, str]
    """Folder and name without the band's token."""

    band: str = ""
    """Empty: the name tells of no band."""

    beside: bool = False
    """True for masks, quality flags and previews."""

    metres: str = ""

    @classmethod
    def of(cls, path: Path) -> BandFileName:
        tokens = list(TOKEN.finditer(path.stem))
        if not tokens:
            return cls(path, (path.parent, path.name))
        last = tokens[-1]
        # Sentinel-2's folders, one a resolution, count as one
        folder = path.parent.parent if re.fullmatch(r"R\d\dm", path.parent.name) else path.parent
        stem = path.stem[: last.start()] + path.stem[last.end() :]
        band = last["numbered"] or last["worded"] or ""
        return cls(path, (folder, stem), band, last["beside"] is not None, last["metres"] or "")


def is_ancillary(name: str) -> bool:
    """True for what names a mask, quality flags or a preview: `SCL`, `QA_PIXEL`."""
    return BandFileName.of(Path(name)).beside


def group_band_files(paths: Sequence[Path]) -> list[SourceImage]:
    """The images that files make: those of one band each, whose names differ in that only, make one together.

    Masks, quality flags and previews are left out where an image that they belong to is there.
    """
    parts = [BandFileName.of(path) for path in paths]
    groups: dict[tuple[Path, str], list[BandFileName]] = {}
    for part in parts:
        groups.setdefault(part.stem, []).append(part)
    bundles = {stem: _bundle(group) for stem, group in groups.items() if _is_bundle(group)}
    beside = _beside(parts, groups)
    images: dict[tuple[object, ...], SourceImage] = {}
    for number, part in enumerate(parts):
        if part.stem in bundles:
            images.setdefault(part.stem, bundles[part.stem])
        elif part.path not in beside:
            left = sorted(path.name for path, kin in beside.items() if kin == part.path)
            images[number, part.path] = _single(part.path, left)
    return list(images.values())


def _beside(
    parts: Sequence[BandFileName], groups: Mapping[tuple[Path, str], Sequence[BandFileName]]
) -> dict[Path, Path]:
    """The image's file that each mask, flags or preview belongs to: by the same name, or one that begins so."""
    names = sorted((part.stem[0], part.path.stem, part.path) for part in parts if not part.beside)
    found = {}
    for part in parts:
        kin = [its.path for its in groups[part.stem] if not its.beside]
        folder, stem = part.stem
        if not kin and stem:
            first = bisect_left(names, (folder, stem, Path()))
            kin = [path for its, name, path in names[first : first + 1] if its == folder and name.startswith(stem)]
        if part.beside and kin:
            found[part.path] = kin[0]
    return found


def _single(path: Path, left: Sequence[str]) -> SourceImage:
    notes = (f"left out beside {path}, as masks, flags or previews: {', '.join(left)}",) if left else ()
    return SourceImage(str(path), (str(path),), notes=notes)


def _is_bundle(group: Sequence[BandFileName]) -> bool:
    bands = [part for part in group if part.band]
    return len({part.band for part in bands}) > 1 and _are_bands([part.path for part in bands])


def _are_bands(paths: Sequence[Path]) -> bool:
    """True if each file has one band, and all show the same ground: tiles of a mosaic may be named alike."""
    boxes = []
    for path in paths:
        with open_raster(path) as dataset:
            if dataset.count != 1:
                return False
            boxes.append((dataset.crs, np.reshape(dataset.bounds, (2, 2))))
    crs, first = boxes[0]
    return all(its == crs and _share(first, box) > 0.5 for its, box in boxes)


def _share(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The part of the larger box that both cover, the smaller of x and y; boxes are [[left, bottom], [right, top]]."""
    low, high = np.sort(one, axis=0), np.sort(other, axis=0)
    both = np.minimum(low[1], high[1]) - np.maximum(low[0], high[0])
    return float((both / np.maximum(low[1] - low[0], high[1] - high[0])).min())


def _bundle(group: Sequence[BandFileName]) -> SourceImage:
    finest: dict[str, BandFileName] = {}
    for part in sorted((p for p in group if p.band), key=lambda part: part.metres):
        finest.setdefault(part.band, part)
    bands = sorted(finest, key=_band_order)
    folder, stem = group[0].stem
    name = str(folder / stem)
    notes = [f"{len(bands)} files are taken together as {name}, one a band: {', '.join(bands)}"]
    left = sorted(part.path.name for part in group if part is not finest.get(part.band))
    if left:
        notes.append(f"left out of {name}, as masks, flags, previews or a band once more: {', '.join(left)}")
    return SourceImage(
        name, tuple(str(finest[band].path) for band in bands), tuple((b,) for b in bands), notes=tuple(notes)
    )


def _band_order(band: str) -> tuple[str, int, str]:
    """B2 before B10, B8 before B8A."""
    letters, digits, rest = re.findall(r"^(\D*)(\d*)(.*)", band)[0]
    return letters.lower(), int(digits or 0), rest
