"""Pictures as PNG or JPEG in addresses that need no network."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geopsp.core.legend import IGNORE_INDEX, Legend

QUALITY = 82
"""Of JPEG."""

Rgb = NDArray[np.uint8]


def stretch(data: NDArray[np.floating], low: Sequence[float], high: Sequence[float]) -> Rgb:
    """Return (h, w, 3) colours of (3, h, w) values: `low` of each band is dark, `high` is bright."""
    bottom, top = (np.asarray(limits, np.float32)[:, None, None] for limits in (low, high))
    scaled = (np.nan_to_num(data.astype(np.float32)) - bottom) / np.maximum(top - bottom, 1e-12)
    colors: Rgb = (scaled.clip(0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
    return colors


def class_palette(legend: Legend) -> list[tuple[int, int, int]]:
    """Return a colour for each class, all different: that of the legend, or one that differs from it by a little."""
    found: list[tuple[int, int, int]] = []
    for red, green, blue in (info.rgb for info in legend):
        near = ((red, green, blue ^ step) for step in range(256))
        found.append(next(color for color in near if color not in found))
    return found


def png_of_classes(indices: NDArray[np.uint8], legend: Legend) -> str:
    """Return a PNG of (h, w) channel indices in the colours of `class_palette`; clear where they are IGNORE_INDEX."""
    return png_of_indices(indices, class_palette(legend))


def png_of_indices(indices: NDArray[np.uint8], palette: Sequence[tuple[int, int, int]]) -> str:
    """Return a PNG of (h, w) numbers of colours; clear where they are IGNORE_INDEX."""
    image = Image.fromarray(np.ascontiguousarray(indices))
    whole = [*palette, *[(0, 0, 0)] * (256 - len(palette))]  # of a shorter one, Pillow forgets which index is clear
    image.putpalette([value for color in whole for value in color])
    return _address(image, "PNG", transparency=IGNORE_INDEX, optimize=True)


def png_of_colors(colors: NDArray[np.uint8]) -> str:
    """Return a PNG of (h, w, 3 or 4) colours."""
    return _address(Image.fromarray(np.ascontiguousarray(colors)), "PNG", optimize=True)


def jpeg_of_colors(colors: Rgb) -> str:
    """Return a JPEG of (h, w, 3) colours."""
    return _address(Image.fromarray(np.ascontiguousarray(colors)), "JPEG", quality=QUALITY, optimize=True)


def _address(image: Image.Image, kind: str, **options: object) -> str:
    file = BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind.lower()};base64,{b64encode(file.getvalue()).decode('ascii')}"
