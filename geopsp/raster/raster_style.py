"""QGIS styles of rasters, beside them as NAME.qml: classes, probabilities, and how sure a map is.

Values are those after the scale of a raster, as QGIS shows them: fractions are 0 to 1, whatever they are stored as.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from geopsp.core.legend import BACKGROUND, ClassInfo, Legend
from geopsp.core.qml import new_qml, qml_document, write_qml

logger = logging.getLogger(__name__)


SURE_TO_UNSURE = ("#ffffcc", "#fed976", "#fd8d3c", "#e31a1c", "#800026")
"""From what is sure to what deserves a look; ColorBrewer's YlOrRd, which colour-blind people can read, too."""


MOST_DISAGREEMENT = 0.5
"""From here on disagreement has the darkest colour: tiles that overlap rarely differ by more."""


@dataclass(frozen=True, slots=True)
class ColorStop:
    """A value of a colour ramp; `color` is #rrggbb, `alpha` 0 to 255."""

    value: float
    color: str
    alpha: int = 255

    @property
    def label(self) -> str:
        return f"{self.value:.4g}"

    @property
    def rgba(self) -> str:
        """The colour as in the options of QGIS."""
        return ",".join(map(str, (*bytes.fromhex(self.color[1:]), self.alpha)))


def write_class_style(path: Path, legend: Legend) -> None:
    """Write the style of a class raster: a colour and a label for each class. A style that is not ours stays.

    Raises:
        OutputError: if it cannot be written.
    """
    _write_style(path, _class_style(legend))


def write_probability_style(path: Path, legend: Legend) -> None:
    """Write the style of probabilities, one band per class: the first class that is not background.

    Its colour is transparent at 0 and opaque at 1. The other bands are in the list of the layer's properties. A style
    that is not ours stays.

    Raises:
        OutputError: if it cannot be written.
    """
    band, info = _first_foreground(legend)
    _write_style(path, _ramp_style([ColorStop(0, info.color, 0), ColorStop(1, info.color)], band=band))


def write_confidence_style(path: Path, legend: Legend) -> None:
    """Write the style of a confidence raster: from dark red, the least that is possible, to pale yellow at 1.

    The most probable of n classes has at least 1/n. A style that is not ours stays.

    Raises:
        OutputError: if it cannot be written.
    """
    least = 1 / max(len(legend), 2)
    _write_style(path, _ramp_style(_spread(SURE_TO_UNSURE[::-1], least, 1)))


def write_disagreement_style(path: Path, _: Legend) -> None:
    """Write the style of a disagreement raster: from pale yellow at 0 to dark red. A style that is not ours stays.

    Raises:
        OutputError: if it cannot be written.
    """
    _write_style(path, _ramp_style(_spread(SURE_TO_UNSURE, 0, MOST_DISAGREEMENT)))


def class_style(legend: Legend) -> str:
    """Return a QGIS 3 style with a colour and a label for each class."""
    return qml_document(_class_style(legend))


def _write_style(path: Path, root: ET.Element) -> None:
    target = path.with_suffix(".qml")
    if not write_qml(target, root):
        logger.info("%s is kept, as geopsp did not write it; QGIS shows %s with it.", target.name, path.name)


def _first_foreground(legend: Legend) -> tuple[int, ClassInfo]:
    """Return the first class that is not background, else the first, with the number of its band."""
    bands = list(enumerate(legend, 1))
    return next((each for each in bands if each[1].name.lower() != BACKGROUND), bands[0])


def _spread(colors: Sequence[str], low: float, high: float) -> list[ColorStop]:
    """Return colours at equal distances from one value to another."""
    steps = len(colors) - 1
    return [ColorStop(low + (high - low) * number / steps, color) for number, color in enumerate(colors)]


def _add_renderer(root: ET.Element, **look: str) -> ET.Element:
    """Add the renderer of a raster, opaque and without another look of nodata."""
    look |= {"opacity": "1", "alphaBand": "-1", "nodataColor": ""}
    renderer = ET.SubElement(ET.SubElement(root, "pipe"), "rasterrenderer", look)
    ET.SubElement(renderer, "rasterTransparency")
    ET.SubElement(root, "blendMode").text = "0"
    return renderer


def _class_style(legend: Legend) -> ET.Element:
    root = new_qml()
    palette = ET.SubElement(_add_renderer(root, type="paletted", band="1"), "colorPalette")
    for info in legend:
        entry = {"value": str(info.code), "color": info.color, "alpha": str(info.alpha), "label": info.name}
        ET.SubElement(palette, "paletteEntry", entry)
    return root


def _ramp_style(stops: Sequence[ColorStop], *, band: int = 1) -> ET.Element:
    """Return a style of a band in colours between those of the stops, with a continuous legend."""
    root = new_qml()
    low, high = stops[0].label, stops[-1].label
    renderer = _add_renderer(
        root, type="singlebandpseudocolor", band=str(band), classificationMin=low, classificationMax=high
    )
    look = {"colorRampType": "INTERPOLATED", "classificationMode": "1", "clip": "0", "labelPrecision": "2",
            "minimumValue": low, "maximumValue": high}  # fmt: skip
    shader = ET.SubElement(ET.SubElement(renderer, "rastershader"), "colorrampshader", look)
    _add_ramp(shader, stops)
    for stop in stops:
        entry = {"value": stop.label, "color": stop.color, "alpha": str(stop.alpha), "label": stop.label}
        ET.SubElement(shader, "item", entry)
    return root


def _add_ramp(shader: ET.Element, stops: Sequence[ColorStop]) -> None:
    """Add the colours alone, of which QGIS draws the legend; for QGIS from 3.26 on (Option) and older ones (prop)."""
    first, *middle, last = stops
    width = last.value - first.value
    between = ":".join(f"{(stop.value - first.value) / width:.4g};{stop.rgba}" for stop in middle)
    ramp = ET.SubElement(shader, "colorramp", type="gradient", name="[source]")
    options = ET.SubElement(ramp, "Option", type="Map")
    properties = {"color1": first.rgba, "color2": last.rgba, "discrete": "0", "rampType": "gradient", "stops": between}
    for key, value in properties.items():
        ET.SubElement(options, "Option", name=key, type="QString", value=value)
        ET.SubElement(ramp, "prop", k=key, v=value)
