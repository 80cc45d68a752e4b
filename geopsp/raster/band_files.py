"""Images that are stored as one file per band, such as Sentinel-2 and Landsat.

S2_T32TPT_20230512_B02_10m.jp2 ┐
S2_T32TPT_20230512_B8A_20m.jp2 ├─> S2_T32TPT_20230512, bands B02 and B8A
S2_T32TPT_20230512_SCL_20m.jp2 ┘   (the scene classification is no band)

Another naming scheme is one more alternative in the regular expressions below.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.errors import InputNotFoundError
from geopsp.raster.open import open_raster
from geopsp.raster.sentinel import product_scales
from geopsp.raster.source_image import SourceImage

NUMBERED = r"(?:(?:SR|ST|TOA)_)?(?P<numbered>B(?:8A|\d{1,2})(?:_VCID_\d)?)"
"""Band numbers: B02, B8A, SR_B4."""


WORDED = r"(?P<worded>red|green|blue|coastal|pan|nir(?:0?[89])?|swir(?:1|2|16|22)?|rededge\d?|VV|VH|HH|HV)"
"""Colours and polarisations."""


ANCILLARY = (
    r"(?P<ancillary>(?:(?:SR|ST)_)?QA\d*(?:_(?:PIXEL|RADSAT|AEROSOL))?|BQA|SCL|AOT|WVP|TCI|PVI|MSK_[A-Z]+|CLD(?:PRB)?|"
    r"SNW(?:PRB)?|[VS][AZ]A|udm2?|fmask|ST_(?:ATRAN|CDIST|DRAD|EMIS|EMSD|TRAD|URAD)|SR_(?:CLOUD|ATMOS)[A-Z_]*)"
)
"""Masks, quality flags and previews that come with the bands."""


TOKEN = re.compile(
    rf"(?:^|[_.-])(?:{NUMBERED}|{WORDED}|{ANCILLARY})(?:_(?P<resolution>\d\dm))?(?=$|[_.-])", re.IGNORECASE
)
"""The part of a file name that differs between the bands of an image."""


def find(item: Any) -> list[SourceImage] | None:
    """Return the image of a mapping from band names to files; None for anything else.

    Raises:
        InputNotFoundError: if the mapping is empty.
    """
    if not isinstance(item, Mapping):
        return None
    if not item:
        raise InputNotFoundError("The mapping of bands to files is empty. Name at least one band and its file.")
    files = tuple(str(path) for path in item.values())
    return [SourceImage(files[0], files, tuple((name,) for name in item))]


@dataclass(frozen=True, slots=True)
class BandFileName:
    """What the name of a file says about its band."""

    path: Path

    stem: tuple[Path, str]
    """Folder, and name without the token of the band."""

    band: str = ""
    """Band name; "" if the file name has none."""

    ancillary: bool = False
    """True for masks, quality flags and previews."""

    resolution: str = ""
    """E.g. "10m"; "" if the file name has none."""

    @classmethod
    def from_path(cls, path: Path) -> BandFileName:
        """Parse the name of a file."""
        tokens = list(TOKEN.finditer(path.stem))
        if not tokens:
            return cls(path, (path.parent, path.name))
        token = tokens[-1]
        # Sentinel-2 has a folder per resolution
        folder = path.parent.parent if re.fullmatch(r"R\d\dm", path.parent.name) else path.parent
        stem = path.stem[: token.start()] + path.stem[token.end() :]
        band = token["numbered"] or token["worded"] or ""
        return cls(path, (folder, stem), band, token["ancillary"] is not None, token["resolution"] or "")


def is_ancillary(name: str) -> bool:
    """Return True for the name of a mask, quality flags or a preview, such as "SCL" or "QA_PIXEL"."""
    return BandFileName.from_path(Path(name)).ancillary


def group_band_files(paths: Sequence[Path]) -> list[SourceImage]:
    """Group files into images: files of one band each whose names differ only in the band make one image.

    Masks, quality flags and previews are left out where there is an image that they belong to.
    """
    names = [BandFileName.from_path(path) for path in paths]
    groups: dict[tuple[Path, str], list[BandFileName]] = {}
    for name in names:
        groups.setdefault(name.stem, []).append(name)
    grouped = {stem: _image_of_group(group) for stem, group in groups.items() if _is_one_image(group)}
    owners = _ancillary_owners(names, groups)
    images: dict[tuple[object, ...], SourceImage] = {}
    for number, name in enumerate(names):
        if name.stem in grouped:
            images.setdefault(name.stem, grouped[name.stem])
        elif name.path not in owners:
            unused = sorted(path.name for path, owner in owners.items() if owner == name.path)
            images[number, name.path] = _image_of_file(name.path, unused)
    return list(images.values())


def _ancillary_owners(
    names: Sequence[BandFileName], groups: Mapping[tuple[Path, str], Sequence[BandFileName]]
) -> dict[Path, Path]:
    """Map each mask, flags or preview to a file of its image: one with the same stem, or a name that begins with it."""
    images = sorted((name.stem[0], name.path.stem, name.path) for name in names if not name.ancillary)
    owners = {}
    for name in names:
        candidates = [other.path for other in groups[name.stem] if not other.ancillary]
        folder, stem = name.stem
        if not candidates and stem:
            first = bisect_left(images, (folder, stem, Path()))
            candidates = [
                path
                for other_folder, other_stem, path in images[first : first + 1]
                if other_folder == folder and other_stem.startswith(stem)
            ]
        if name.ancillary and candidates:
            owners[name.path] = candidates[0]
    return owners


def _image_of_file(path: Path, unused: Sequence[str]) -> SourceImage:
    notes = (f"not used with {path} (masks, quality flags or previews): {', '.join(unused)}",) if unused else ()
    return SourceImage(str(path), (str(path),), notes=notes)


def _is_one_image(group: Sequence[BandFileName]) -> bool:
    bands = [name for name in group if name.band]
    return len({name.band for name in bands}) > 1 and _are_bands([name.path for name in bands])


def _are_bands(paths: Sequence[Path]) -> bool:
    """Return True if each file has one band, and all overlap: tiles of a mosaic may have such names, too."""
    boxes = []
    for path in paths:
        with open_raster(path) as dataset:
            if dataset.count != 1:
                return False
            boxes.append((dataset.crs, np.reshape(dataset.bounds, (2, 2))))
    first_crs, first_box = boxes[0]
    return all(crs == first_crs and _overlap_fraction(first_box, box) > 0.5 for crs, box in boxes)


def _overlap_fraction(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the overlap as a fraction of the longer side, in x or y, whichever is less.

    Boxes are [[left, bottom], [right, top]].
    """
    low, high = np.sort(one, axis=0), np.sort(other, axis=0)
    overlap = np.minimum(low[1], high[1]) - np.maximum(low[0], high[0])
    return float((overlap / np.maximum(low[1] - low[0], high[1] - high[0])).min())


def _image_of_group(group: Sequence[BandFileName]) -> SourceImage:
    finest: dict[str, BandFileName] = {}
    for name in sorted((name for name in group if name.band), key=lambda name: name.resolution):
        finest.setdefault(name.band, name)
    bands = sorted(finest, key=_band_order)
    folder, stem = group[0].stem
    image = str(folder / stem)
    notes = [f"{len(bands)} files make the image {image}, one per band: {', '.join(bands)}"]
    unused = sorted(name.path.name for name in group if name is not finest.get(name.band))
    if unused:
        notes.append(
            f"not used in {image} (masks, quality flags, previews or a band at a coarser resolution): "
            f"{', '.join(unused)}"
        )
    files = [finest[band].path for band in bands]
    scales, names = product_scales(files, bands), tuple((band,) for band in bands)
    return SourceImage(image, tuple(map(str, files)), names, scales=scales, notes=tuple(notes))


def _band_order(band: str) -> tuple[str, int, str]:
    """Sort B2 before B10, and B8 before B8A."""
    letters, digits, rest = re.findall(r"^(\D*)(\d*)(.*)", band)[0]
    return letters.lower(), int(digits or 0), rest
