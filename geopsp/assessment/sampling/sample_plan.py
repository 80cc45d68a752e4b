"""What is drawn of a map: its strata, and how many pixels of each."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geopsp.assessment.sampling.pixel_counts import PixelCounts
from geopsp.assessment.sampling.pixel_draw import NO_STRATUM
from geopsp.assessment.sampling.sample_file import Stratum
from geopsp.assessment.sampling.sample_options import MINIMUM_PER_CLASS, SampleOptions
from geopsp.assessment.sampling.sample_size import allocate, simple_sample_size, stratified_sample_size
from geopsp.assessment.sampling.strata_raster import NUM_KEYS, StrataRaster
from geopsp.core.legend import ClassInfo
from geopsp.core.text import format_count
from geopsp.errors import OptionError

logger = logging.getLogger(__name__)

MIN_PER_STRATUM = 2
"""Points of a stratum, so that its variance can be estimated."""


MOST_NAMED = 5
"""Strata that a message names."""


WHOLE_MAP = "map"
"""Name of the only stratum of simple and cluster samples."""


M2_PER_HA = 10_000.0


@dataclass(frozen=True, slots=True, eq=False)
class SamplePlan:
    """The strata of a map, with the number of pixels to draw of each."""

    strata: tuple[Stratum, ...]

    of_key: NDArray[np.uint16]
    """(NUM_KEYS,) index of the stratum of each key; NO_STRATUM for keys that are not drawn."""

    streams: tuple[int, ...]
    """Numbers that tell strata apart in the random draw, whatever other strata there are."""

    map_classes: pd.DataFrame
    """Pixels and area of each mapped class in each stratum."""

    def sized(self, sizes: Iterable[int]) -> SamplePlan:
        """Return the plan with other numbers of pixels."""
        strata = (replace(each, sample_size=int(n)) for each, n in zip(self.strata, sizes, strict=True))
        return replace(self, strata=tuple(strata))


def plan_strata(
    raster: StrataRaster, counts: PixelCounts, classes: Mapping[int, ClassInfo], *, stratified: bool
) -> SamplePlan:
    """Return the strata of a map, of which no pixel is drawn yet.

    Args:
        raster: The map.
        counts: Its pixels by key.
        classes: The classes by the codes of `raster`.
        stratified: False puts all pixels into one stratum.
    """
    keys = counts.keys
    of_key = np.full(NUM_KEYS, NO_STRATUM, np.uint16)
    of_key[keys] = np.arange(len(keys)) if stratified else 0
    infos = [classes[raster.split(key)[0]] for key in keys.tolist()]
    pixels, area = counts.pixels[keys].tolist(), (counts.area[keys] / M2_PER_HA).tolist()
    names = _stratum_names(raster, keys, classes) if stratified else [WHOLE_MAP] * len(keys)
    table = pd.DataFrame(
        {"stratum": names, "map_class": [info.name for info in infos], "pixels": pixels, "area_ha": area}
    )
    cross = table.groupby(["stratum", "map_class"], as_index=False, sort=False).sum()
    if not stratified:
        return SamplePlan((Stratum(WHOLE_MAP, None, None, None, sum(pixels), sum(area), 0),), of_key, (0,), cross)
    zones = [raster.zones.legend.names[raster.split(key)[2]] if raster.zones else None for key in keys.tolist()]
    rows = zip(names, infos, zones, pixels, area, strict=True)
    strata = (Stratum(name, info.name, info.code, zone, number, ha, 0) for name, info, zone, number, ha in rows)
    return SamplePlan(tuple(strata), of_key, tuple(keys.tolist()), cross)


def _stratum_names(raster: StrataRaster, keys: NDArray[np.int64], classes: Mapping[int, ClassInfo]) -> list[str]:
    """Return a name for each stratum: its class, and where there are some its confidence and its zone."""
    names = []
    for key in keys.tolist():
        code, interval, zone = raster.split(key)
        parts = [classes[code].name]
        parts += [_bin_name(raster.limits, interval)] if raster.limits else []
        parts += [_zone_words(raster.zones.legend.names[zone])] if raster.zones else []
        names.append(", ".join(parts))
    return distinct(names, keys.tolist())


def _zone_words(name: str) -> str:
    return f"zone {name}" if name.isdecimal() else name


def _bin_name(limits: Sequence[float], interval: int) -> str:
    if interval > len(limits):
        return "confidence unknown"
    if interval == 0:
        return f"confidence below {limits[0]:g}"
    if interval == len(limits):
        return f"confidence from {limits[-1]:g}"
    return f"confidence {limits[interval - 1]:g} to {limits[interval]:g}"


def distinct(names: Sequence[str], codes: Sequence[int]) -> list[str]:
    """Return the names, with the code after each that occurs several times."""
    found = [f"{name} ({code})" if names.count(name) > 1 else name for name, code in zip(names, codes, strict=True)]
    return found if len(set(found)) == len(found) else [f"{n} ({c})" for n, c in zip(names, codes, strict=True)]


def choose_sizes(plan: SamplePlan, options: SampleOptions) -> SamplePlan:
    """Return the plan of a stratified or simple sample with the number of pixels to draw of each stratum.

    Raises:
        OptionError: if `size` is more than there are pixels, or too small for the strata.
    """
    pixels = np.array([stratum.pixels for stratum in plan.strata])
    population = int(pixels.sum())
    if options.size is not None and options.size > population:
        raise OptionError(
            f"`size` is {options.size:,}, but the map has {format_count(population, 'pixel')} that can be drawn. "
            "Choose a smaller one."
        )
    if options.design == "simple":
        return plan.sized([options.size or min(_simple_size(plan, options, population), population)])
    weights = np.array([stratum.area_ha for stratum in plan.strata])
    weights /= weights.sum()
    size = options.size
    if size is None:
        accuracies = [options.accuracy_of(stratum.map_class or "") for stratum in plan.strata]
        size = stratified_sample_size(weights, accuracies, standard_error=options.standard_error, population=population)
    sizes = _allocate(plan, weights, size, options)
    _tell_exhausted(plan, sizes)
    return plan.sized(sizes)


def _tell_exhausted(plan: SamplePlan, sizes: NDArray[np.int64]) -> None:
    """Say of which strata all pixels are drawn."""
    whole = [each for each, drawn in zip(plan.strata, sizes.tolist(), strict=True) if drawn == each.pixels]
    if whole:
        named = [f"{each.stratum} ({format_count(each.pixels, 'pixel')})" for each in whole[:MOST_NAMED]]
        more = f" and {len(whole) - MOST_NAMED:,} more" if len(whole) > MOST_NAMED else ""
        logger.warning(
            f"{format_count(len(whole), 'stratum has', 'strata have')} so few pixels that all of them are in the "
            f"sample: {', '.join(named)}{more}."
        )


def choose_num_blocks(plan: SamplePlan, options: SampleOptions, num_blocks: int) -> int:
    """Return how many blocks are drawn: without `size`, as if all pixels of a block were alike.

    Raises:
        OptionError: if there are fewer.
    """
    wanted = options.size or min(_simple_size(plan, options, num_blocks), num_blocks)
    if wanted > num_blocks or num_blocks < MIN_PER_STRATUM:
        raise OptionError(
            f"The map has {format_count(num_blocks, 'block')} of {options.cluster_size} x {options.cluster_size} "
            f"pixels with data, but {max(wanted, MIN_PER_STRATUM):,} are needed. Choose a smaller `size` or "
            "`cluster_size`."
        )
    return wanted


def _simple_size(plan: SamplePlan, options: SampleOptions, population: int) -> int:
    area = plan.map_classes["area_ha"].to_numpy()
    accuracies = [options.accuracy_of(name) for name in plan.map_classes["map_class"]]
    accuracy = float(np.average(accuracies, weights=area))
    return simple_sample_size(min(accuracy, 1.0), standard_error=options.standard_error, population=population)


def _allocate(plan: SamplePlan, weights: NDArray[np.float64], size: int, options: SampleOptions) -> NDArray[np.int64]:
    """Return the number of pixels of each stratum; a size that follows from the standard error may grow."""
    pixels = np.array([stratum.pixels for stratum in plan.strata], np.int64)
    low = np.minimum(pixels, MIN_PER_STRATUM)
    codes, of_class = np.unique([stratum.map_code or 0 for stratum in plan.strata], return_inverse=True)

    def by_class(values: NDArray[np.generic]) -> NDArray[np.int64]:
        return np.array([values[of_class == number].sum() for number in range(len(codes))], values.dtype)

    low_of_class = by_class(low)
    if options.allocation == "minimum":
        least = options.minimum_per_class or MINIMUM_PER_CLASS
        if options.size is not None and options.minimum_per_class is None:
            least = min(least, size // len(codes))
        low_of_class = np.maximum(low_of_class, np.minimum(by_class(pixels), least))
    needed = int(low_of_class.sum())
    if size < needed and options.size is not None:
        raise OptionError(
            f"`size` is {size:,}, but {format_count(len(plan.strata), 'stratum', 'strata')} need at least {needed:,} "
            "points. Choose a larger one, or fewer strata or points per class."
        )
    size = min(max(size, needed), int(pixels.sum()))
    if options.allocation != "minimum":
        return allocate(size, np.ones(len(pixels)) if options.allocation == "equal" else weights, low, pixels)
    sizes = np.zeros(len(pixels), np.int64)
    of_classes = allocate(size, by_class(weights), low_of_class, by_class(pixels))
    for number, total in enumerate(of_classes.tolist()):
        inside = of_class == number
        sizes[inside] = allocate(total, weights[inside], low[inside], pixels[inside])
    return sizes
