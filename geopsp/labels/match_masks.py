"""Find masks, and match them to images by name.

An image and a mask belong together if their names are equal, without the ending of the format. The names that are left
are compared without what says which of both a file is: `tile_7_sat.jpg` and `tile_7_mask.png`. Case does not count. If
files in several folders have one name, the folders that they have in common decide.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geopsp.core.paths import is_local
from geopsp.core.text import format_count
from geopsp.errors import LabelError, OptionError
from geopsp.raster.find_images import list_files
from geopsp.raster.open import RASTER_ENDINGS
from geopsp.raster.source_image import SourceImage

logger = logging.getLogger(__name__)

MASK_WORDS = (
    "mask", "masks", "label", "labels", "labelids", "labeltrainids", "gt", "groundtruth", "ground_truth", "annotation",
    "annotations", "seg", "segmentation", "gtfine", "gtcoarse", "target", "targets", "truth", "lbl", "msk", "l",
)  # fmt: skip
"""What the name of a mask may begin or end with, set off by `_`, `-`, `.`, a blank or, if it is longer, a digit."""

IMAGE_WORDS = ("image", "images", "img", "sat", "satellite", "rgb", "raw", "ortho", "leftimg8bit")
"""The same for images."""

SEPARATOR = r"[_\-. ]"
MAX_LISTED = 3


@dataclass(frozen=True, slots=True)
class MaskPair:
    """An image and its mask."""

    image: SourceImage
    mask: str


def find_masks(labels: Any) -> list[str] | None:
    """Return the files of a folder, a glob or a list of label rasters; None if `labels` is anything else.

    Raises:
        InputNotFoundError: if an item names no file.
        OptionError: if a list holds anything but label rasters.
    """
    if isinstance(labels, list | tuple):
        if not labels or not all(isinstance(item, str | Path) and _is_raster(item) for item in labels):
            raise OptionError(
                f"`labels` is {list(map(str, labels))}, but must hold label rasters only, one per "
                "image, or vector files only."
            )
        found = [name for item in labels for name in (_files(item) if is_local(item) else [str(item)])]
        return list(dict.fromkeys(found))
    if not isinstance(labels, str | Path) or not is_local(labels) or Path(labels).is_file():
        return None
    path = Path(labels)
    if path.is_dir():
        endings = {file.suffix.lower() for file in path.iterdir() if not file.name.startswith(".")}
        is_vector = path.suffix.lower() == ".gdb" or endings & {".shp", ".tab", ".mif"}
        if is_vector or (endings and not endings & RASTER_ENDINGS):
            return None
    elif not (_is_pattern(labels) and _is_raster(labels)):
        return None
    return _files(labels)


def _files(item: str | Path) -> list[str]:
    return [str(file) for file in list_files(item)]


def _is_pattern(name: str | Path) -> bool:
    return re.search(r"[*?\[]", str(name)) is not None


def _is_raster(name: str | Path) -> bool:
    """Return True for a raster by its ending, and for folders and patterns of any ending."""
    suffix = Path(name).suffix.lower()
    return (
        suffix in RASTER_ENDINGS or Path(name).is_dir() or (_is_pattern(name) and (not suffix or _is_pattern(suffix)))
    )


def match_masks(images: Sequence[SourceImage], masks: Sequence[str], source: str) -> list[MaskPair]:
    """Match masks to images by their names, in the order of the images; files that are left over are warned of.

    Images that are masks themselves, as in a folder of both, are left out.

    Raises:
        LabelError: if no mask matches an image, or two match one.
    """
    images, masks, both = _apart(list({image.name: image for image in images}.values()), masks, source)
    if len(images) == len(masks) == 1:
        return [MaskPair(images[0], masks[0])]
    exact, rest = _match(images, masks, {}, _stem, _stem)
    matched, unused = _match(images, rest, exact, _image_key, _mask_key)
    pairs = exact | matched
    if not pairs:
        raise LabelError(
            f"None of {format_count(len(masks), 'mask')} of {source} has the name of one of "
            f"{format_count(len(images), 'image')}: {_listed(masks)}; {_listed([i.name for i in images])}. Rename "
            "them: names must be equal but for beginnings and endings such as mask_ and _label."
        )
    if both:
        logger.info(f"{format_count(both, 'file')} named both as image and as mask are used as one of them only.")
    _say(images, pairs, unused, words=[_stripped(mask) for mask in matched.values()])
    return [MaskPair(image, pairs[image.name]) for image in images if image.name in pairs]


def _apart(
    images: Sequence[SourceImage], masks: Sequence[str], source: str
) -> tuple[list[SourceImage], list[str], int]:
    """Tell images and masks of one folder apart: of a folder and some of its files, these are what they are named for.

    Raises:
        LabelError: if images and masks are the same files.
    """
    own = {Path(mask).resolve() for mask in masks}
    files = {image.name: {Path(file).resolve() for file in image.files if is_local(file)} for image in images}
    of_images = set().union(*files.values())
    both = own & of_images
    if own == of_images:
        raise LabelError(f"The images are the same files as the masks, {source}. Name them apart.")
    if both and of_images < own:
        return list(images), [mask for mask in masks if Path(mask).resolve() not in of_images], len(both)
    return [image for image in images if not files[image.name] & own], list(masks), len(both)


def _match(
    images: Sequence[SourceImage], masks: Sequence[str], done: Mapping[str, str], image_key: Any, mask_key: Any
) -> tuple[dict[str, str], list[str]]:
    """Return the mask of each image by its name, and the masks that are left.

    Raises:
        LabelError: if two masks match an image, or two images a mask.
    """
    by_key: dict[str, list[SourceImage]] = {}
    for image in images:
        by_key.setdefault(image_key(image.name), []).append(image)
    found: dict[str, list[str]] = {}
    left = []
    for mask in masks:
        candidates = by_key.get(mask_key(mask), [])
        best = _nearest(mask, candidates)
        if len(best) > 1:
            raise LabelError(
                f"{mask} is the mask of {best[0].name} or of {best[1].name} by its name. Leave one of them out."
            )
        if best:
            found.setdefault(best[0].name, []).append(mask)
        else:
            left.append(mask)
    for name, new in found.items():
        several = [*([done[name]] if name in done else []), *new]
        if len(several) > 1:
            raise LabelError(f"{name} has two masks by name, {several[0]} and {several[1]}. Leave one of them out.")
    return {name: new[0] for name, new in found.items()}, left


def _nearest(mask: str, candidates: Sequence[SourceImage]) -> list[SourceImage]:
    """Return the candidates that share most folder names with a mask."""
    folders = Counter(Path(mask).parts[:-1])
    shared = [(folders & Counter(Path(image.name).parts[:-1])).total() for image in candidates]
    return [image for image, count in zip(candidates, shared, strict=True) if count == max(shared)]


def _stem(name: str) -> str:
    path = Path(name)
    return (path.stem if path.suffix.lower() in RASTER_ENDINGS else path.name).casefold()


def _mask_key(name: str) -> str:
    return _without(_stem(name), MASK_WORDS)


def _image_key(name: str) -> str:
    return _without(_stem(name), IMAGE_WORDS)


def _without(stem: str, words: Sequence[str]) -> str:
    """Return a stem without words at its beginning and end; all of it if nothing else is left."""
    word, long = "|".join(map(re.escape, words)), "|".join(re.escape(word) for word in words if len(word) > 2)
    ending = re.compile(rf"{SEPARATOR}+(?:{word})$|(?<=\d)(?:{long})$")
    beginning = re.compile(rf"^(?:{word}){SEPARATOR}+|^(?:{long})(?=\d)")
    while (rest := beginning.sub("", ending.sub("", stem))) and rest != stem:
        stem = rest
    return stem


def _stripped(mask: str) -> str:
    """Return what the rule takes from the name of a mask, e.g. "_mask"."""
    stem, key = _stem(mask), _mask_key(mask)
    return stem.replace(key, "*", 1) if key != stem else ""


def _say(images: Sequence[SourceImage], pairs: Mapping[str, str], unused: Sequence[str], words: Sequence[str]) -> None:
    found = sorted(set(filter(None, words)))
    without = f", without {', '.join(w.replace('*', '') or w for w in found)}" if found else ""
    total = format_count(len(images), "image")
    logger.info(f"Matched {format_count(len(pairs), 'mask')} to {total} by name{without}.")
    if missing := [image.name for image in images if image.name not in pairs]:
        logger.warning(f"{len(missing):,} of {total} have no mask and are left out: {_listed(missing)}.")
    if unused:
        logger.warning(
            f"{len(unused):,} of {format_count(len(unused) + len(pairs), 'mask')} match no image and are left out: "
            f"{_listed(unused)}."
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_LISTED:,} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more
