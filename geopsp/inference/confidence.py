"""Confidence of a map: calibrated probabilities, and pixels that are not sure enough to have a class.

Confidence is compared as the confidence raster stores it, in steps of 1/254: a pixel is unsure exactly where that
raster is below the threshold of the pixel's class. So both agree to the last pixel, on any device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from geopsp.core.argument_names import did_you_mean
from geopsp.core.legend import IGNORE_INDEX, ClassInfo, Legend
from geopsp.errors import OptionError
from geopsp.inference.blend import SUM_ONE
from geopsp.inference.options import OTHER, MapSettings
from geopsp.inference.rolling_rows import BlendedRows
from geopsp.inference.tile_ops import Array, TileOps
from geopsp.models.calibration import Calibration
from geopsp.raster.cog.raster_spec import FRACTION_STEPS

UNSURE, UNSURE_COLOR = "unsure", "#9e9e9e"
"""The class of pixels below the threshold of theirs."""

ROUNDING = 1e-9
"""Slack of a threshold that is a whole number of steps, e.g. 127/254."""


@dataclass(frozen=True, slots=True, eq=False)
class ConfidenceRules:
    """What makes probabilities of scores, and which pixels are unsure."""

    calibration: Calibration | None = None
    """None: probabilities are those of the network."""

    excluded: tuple[int, ...] = ()
    """Channels that are never predicted."""

    limits: tuple[int, ...] = ()
    """The least confidence of each channel in steps of 1/254; (): no pixel is unsure."""

    unsure: ClassInfo | None = None
    """The class of unsure pixels; None: they are nodata."""

    def map_legend(self, legend: Legend) -> Legend:
        """Return the classes of the map: those of the model, and that of unsure pixels."""
        if self.unsure is None:
            return legend
        return Legend(tuple(sorted((*legend, self.unsure), key=lambda info: info.code)))

    def coefficients(self, classes: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return weights and biases of the calibration, (classes,); a bias of -inf for excluded channels."""
        assert self.calibration is not None
        weights, biases = self.calibration.coefficients(classes)
        biases[list(self.excluded)] = -np.inf
        return weights, biases

    def identity(self, *, needs_probabilities: bool) -> list[Any]:
        """Return what goes into the key of a map; [] if neither classes nor probabilities depend on it."""
        found: list[Any] = []
        if self.limits:
            found.append({"limits": self.limits, "unsure": None if self.unsure is None else self.unsure.code})
        if self.calibration is not None and (needs_probabilities or self.limits):
            found.append({"calibration": self.calibration.identity})
        return found


class Model(Protocol):
    """What a model must tell."""

    legend: Legend
    calibration: Calibration | None


def confidence_rules(settings: MapSettings, model: Model, excluded: tuple[int, ...] = ()) -> ConfidenceRules:
    """Return the rules of a map. With a CRF nothing is calibrated: its probabilities are not those of the fit.

    Raises:
        OptionError: if a threshold is that of a class that the model does not have, or there is no code for unsure
            pixels.
    """
    calibration = model.calibration if settings.calibrated and settings.crf is False else None
    limits = _limits(settings.min_confidence, model.legend)
    if not any(limits):
        return ConfidenceRules(calibration, excluded)
    unsure = _unsure_class(model.legend) if settings.unsure == "class" else None
    return ConfidenceRules(calibration, excluded, limits, unsure)


def _limits(given: float | Mapping[str, float] | None, legend: Legend) -> tuple[int, ...]:
    """Return the least steps of confidence of each channel."""
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        return (_steps(given),) * len(legend)
    names = legend.names
    for name in given:
        if name not in names and name != OTHER:
            raise OptionError(
                f"`min_confidence` names the class {name!r}, but the model has no such class."
                f"{did_you_mean(name, names)} Its classes are {', '.join(names)}."
            )
    rest = 0.0 if OTHER in names else given.get(OTHER, 0.0)
    return tuple(_steps(given.get(name, rest)) for name in names)


def _steps(threshold: float) -> int:
    """Return the least confidence as it is stored that is not below a threshold."""
    return math.ceil(FRACTION_STEPS * threshold - ROUNDING)


def _unsure_class(legend: Legend) -> ClassInfo:
    """Return the class of unsure pixels: its code is above all others, or if 254 is taken the highest that is free."""
    names = {name.lower(): name for name in legend.names}
    if UNSURE in names:
        raise OptionError(
            f"The model has a class {names[UNSURE]!r}, so unsure pixels cannot have a class of that name. Use "
            '`unsure="nodata"`.'
        )
    code = max(legend.codes) + 1
    if code == IGNORE_INDEX:
        free = set(range(IGNORE_INDEX)) - set(legend.codes)
        if not free:
            raise OptionError('All class codes are taken, so there is none for unsure pixels. Use `unsure="nodata"`.')
        code = max(free)
    return ClassInfo(code, UNSURE, UNSURE_COLOR)


@dataclass(eq=False)
class MapRows:
    """Blended rows as rasters are made of them; what several rasters need is computed once."""

    blended: BlendedRows
    rules: ConfidenceRules = field(default_factory=ConfidenceRules)

    @property
    def ops(self) -> TileOps:
        return self.blended.ops

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(rows, cols), True where there is data."""
        return self.blended.valid

    @property
    def sums(self) -> Array:
        """(classes, rows, cols) int32, from 0 to SUM_ONE, without calibration."""
        return self.blended.sums

    @property
    def agreement(self) -> Array | None:
        """(rows, cols) int32; see `BlendedRows`."""
        return self.blended.agreement

    def probabilities(self) -> Array:
        """Return (classes, rows, cols) float32."""
        if self.rules.calibration is None:
            return self.ops.fractions(self.sums, SUM_ONE)
        return self.ops.calibrated(self.sums, SUM_ONE, *self.rules.coefficients(len(self.sums)))

    @cached_property
    def confidence_steps(self) -> Array:
        """(1, rows, cols) uint8: confidence as it is stored, in steps of 1/254."""
        if self.rules.calibration is None:
            found = self.ops.fractions(self.ops.largest(self.sums), SUM_ONE)
        else:
            found = self.ops.confidence(self.sums, SUM_ONE, *self.rules.coefficients(len(self.sums)))
        return to_steps(found, self.ops)

    def codes(self, legend: Legend) -> Array:
        """Return the (rows, cols) uint8 class codes: of the model's classes, and that of unsure pixels."""
        index, ops = self.blended.index, self.ops
        codes = ops.lookup(legend.indices_to_codes(np.arange(256, dtype=np.uint8)), index)
        if not self.rules.limits:
            return codes
        limits = np.zeros(256, np.uint8)
        limits[: len(self.rules.limits)] = self.rules.limits
        least, unsure = ops.lookup(limits, index), self.rules.unsure
        return ops.where(self.confidence_steps[0] < least, IGNORE_INDEX if unsure is None else unsure.code, codes)


def to_steps(fractions: Array, ops: TileOps) -> Array:
    """Return round(254 p), uint8, of fractions p, which are changed."""
    fractions *= FRACTION_STEPS
    fractions += 0.5
    return ops.cast(fractions.clip(0, FRACTION_STEPS), "uint8")
