"""Scale and offset of Sentinel-2 bands, which the metadata of a product says, but not its JPEG 2000 files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from geopsp.core.pixel_values import BandScale, valid_scale

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
"""Bands by the `band_id` of the metadata, from 0."""


QUANTIFICATION = re.compile(r"(?:BOA_)?QUANTIFICATION_VALUE")
OFFSET = re.compile(r"(?:BOA|RADIO)_ADD_OFFSET")
"""Elements of level 2A (BOA) and 1C."""


def product_scales(files: Sequence[Path], bands: Sequence[str]) -> tuple[tuple[BandScale | None, ...], ...]:
    """Return scale and offset of the bands, one per file, of an image in the folder of a product (.SAFE); () elsewhere.

    Source: ESA, Sentinel-2 products, processing baseline 04.00: reflectance = (DN + offset) / quantification value.
    """
    products = {folder for file in files for folder in file.parents if folder.suffix.upper() == ".SAFE"}
    metadata = [path for product in products for path in sorted(product.glob("MTD_MSIL*.xml"))]
    if len(metadata) != 1:
        return ()
    try:
        elements = list(ET.parse(metadata[0]).iter())  # noqa: S314 (expat bounds entities)
        value = next(float(str(each.text)) for each in elements if QUANTIFICATION.fullmatch(each.tag))
        offsets = {
            BANDS[int(each.attrib["band_id"])]: float(str(each.text)) for each in elements if OFFSET.fullmatch(each.tag)
        }
        return tuple((valid_scale(1 / value, offsets.get(band.upper(), 0.0) / value),) for band in bands)
    except (ET.ParseError, OSError, StopIteration, ValueError, KeyError, IndexError, ZeroDivisionError):
        return ()
