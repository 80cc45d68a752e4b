"""The rasters that a map can give, and how each is stored.

A new raster is one entry in `OUTPUTS`; a field of the options makes it a keyword and a shell option.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.inference.confidence import MapRows, to_steps
from geopsp.inference.options import ProbabilityType
from geopsp.inference.tile_ops import Array, TileOps
from geopsp.inference.tile_plan import SCORE_ONE
from geopsp.raster.cog.raster_spec import FRACTION_STEPS, RasterSpec
from geopsp.raster.raster_style import (
    write_class_style,
    write_confidence_style,
    write_disagreement_style,
    write_probability_style,
)


@dataclass(frozen=True, slots=True)
class MapOutput:
    """One kind of raster."""

    spec: Callable[[Path, Legend, ProbabilityType], RasterSpec]
    """Makes its description."""

    encode: Callable[[RasterSpec, MapRows, Legend], Array]
    """Makes its pixels, (bands, rows, cols), of finished rows; what they are where nothing is valid does not matter."""

    write_style: Callable[[Path, Legend], None]
    """Writes QGIS's style beside it; takes the classes of the model."""

    needs_scores: bool = True
    """True if it is made of the scores of all pixels, not only of the classes."""

    needs_agreement: bool = False
    """True if it is made of `BlendedRows.agreement`, for which another buffer is kept."""

    is_calibrated: bool = False
    """True if a calibration of the model changes it."""


def class_spec(path: Path, legend: Legend) -> RasterSpec:
    """Describe a raster of class codes, with 255 where nothing is known."""
    return RasterSpec("classes", path, ("class",), "uint8", IGNORE_INDEX, "mode", legend)


def fraction_spec(name: str, path: Path) -> RasterSpec:
    """Describe a raster of one band of fractions, 0 to 1."""
    return RasterSpec(name, path, (name,), "uint8", IGNORE_INDEX, "mean", scale=1 / FRACTION_STEPS)


def probability_spec(path: Path, legend: Legend, dtype: ProbabilityType = "uint8") -> RasterSpec:
    """Describe a raster with a band of probabilities for each class."""
    names = tuple(legend.names)
    if dtype == "float16":
        return RasterSpec("probabilities", path, names, dtype, np.nan, "mean")
    return RasterSpec("probabilities", path, names, dtype, IGNORE_INDEX, "mean", scale=1 / FRACTION_STEPS)


def encode_fractions(spec: RasterSpec, fractions: Array, ops: TileOps) -> Array:
    """Return (bands, rows, cols) float32 fractions as a raster stores them; `fractions` is changed."""
    return to_steps(fractions, ops) if spec.dtype == "uint8" else ops.cast(fractions, spec.dtype)


def _encode_classes(_: RasterSpec, rows: MapRows, legend: Legend) -> Array:
    return rows.codes(legend)[None]


def _encode_probabilities(spec: RasterSpec, rows: MapRows, _: Legend) -> Array:
    return encode_fractions(spec, rows.probabilities(), rows.ops)


def _encode_confidence(_: RasterSpec, rows: MapRows, __: Legend) -> Array:
    return rows.confidence_steps


def _encode_disagreement(spec: RasterSpec, rows: MapRows, _: Legend) -> Array:
    assert rows.agreement is not None
    return encode_fractions(spec, (1 - rows.ops.fractions(rows.agreement, SCORE_ONE))[None], rows.ops)


OUTPUTS = {
    "classes": MapOutput(
        lambda path, legend, _: class_spec(path, legend), _encode_classes, write_class_style, needs_scores=False
    ),
    "probabilities": MapOutput(probability_spec, _encode_probabilities, write_probability_style, is_calibrated=True),
    "confidence": MapOutput(
        lambda path, *_: fraction_spec("confidence", path),
        _encode_confidence,
        write_confidence_style,
        is_calibrated=True,
    ),
    "disagreement": MapOutput(
        lambda path, *_: fraction_spec("disagreement", path),
        _encode_disagreement,
        write_disagreement_style,
        needs_agreement=True,
    ),
}
"""The rasters by the name of their option; the classes, which each map has, come first."""


def extra_outputs() -> tuple[str, ...]:
    """Return the names of the outputs that a map can have beside the classes: polygons and rasters."""
    return ("polygons", *list(OUTPUTS)[1:])


def needs_scores(specs: Iterable[RasterSpec]) -> bool:
    """Return whether a raster is made of the scores of all pixels."""
    return any(OUTPUTS[spec.name].needs_scores for spec in specs)


def needs_calibration(specs: Iterable[RasterSpec]) -> bool:
    """Return whether a raster depends on the calibration of probabilities."""
    return any(OUTPUTS[spec.name].is_calibrated for spec in specs)


def needs_agreement(specs: Iterable[RasterSpec]) -> bool:
    """Return whether a raster is made of how far tiles agree."""
    return any(OUTPUTS[spec.name].needs_agreement for spec in specs)


def encode_output(spec: RasterSpec, rows: MapRows, legend: Legend) -> Callable[[], NDArray[Any]]:
    """Begin to make the pixels of a raster; call the result for them, (bands, rows, cols), nodata where none is valid.

    What the rows are views of may change before that.
    """
    pixels, valid = rows.ops.host_copy(OUTPUTS[spec.name].encode(spec, rows, legend)), rows.valid

    def finish() -> NDArray[Any]:
        return pixels() if valid.all() else np.where(valid, pixels(), np.array(spec.nodata, spec.dtype))

    return finish
