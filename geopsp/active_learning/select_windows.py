"""From what was measured of all windows to the ones to label: scores, the choice, and their table."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray

from geopsp.active_learning.core_set import Choice, Floats, choose, ranks, rarity
from geopsp.active_learning.ground import Spacing, outlines
from geopsp.active_learning.options import SuggestOptions
from geopsp.active_learning.score_images import Candidates
from geopsp.core.legend import Legend
from geopsp.core.text import format_count
from geopsp.errors import RasterError
from geopsp.raster.scene import Scene
from geopsp.vector.label_package import STATUSES

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """The windows to label, the best first."""

    table: gpd.GeoDataFrame
    scenes: NDArray[np.intp]
    """(n,) the scene of each."""

    corners: NDArray[np.intp]
    """(n, 2) first column and first row."""


def select_windows(
    candidates: Candidates, seen: Floats, scenes: Sequence[Scene], legend: Legend, size: int, options: SuggestOptions
) -> Selection:
    """Choose the windows to label; see `choose`.

    Args:
        candidates: All windows that were scored. Those on labelled ground are not chosen.
        seen: (m, d) features of labelled chips.
        scenes: The images.
        legend: The model's classes.
        size: Side of a window in pixels.
        options: How to choose.

    Raises:
        RasterError: if there is no window to choose from.
    """
    known, free = candidates.is_labelled, candidates.where(~candidates.is_labelled)
    if not len(free.scenes):
        raise _nothing_left(options, any_labelled=bool(known.any()) or options.labelled is not None)
    anchors = [part for part in (seen, candidates.where(known).windows.features) if len(part)]
    shapes = outlines([scene.grid for scene in scenes], free.scenes, free.corners, size)
    spacing = Spacing.of(shapes, min_distance=options.min_distance, max_per_km2=options.max_per_km2)
    features = free.windows.features
    has_novelty = options.novelty_weight > 0 and features.shape[1] > 0
    choice = choose(
        worth(free, options),
        features,
        np.concatenate(anchors) if anchors else features[:0],
        number=options.number,
        novelty_weight=options.novelty_weight if has_novelty else 0.0,
        weight_sum=_weight_sum(options, has_novelty=has_novelty),
        still_allowed=spacing.still_allowed,
        seed=options.seed,
    )
    _tell_if_few(len(choice.positions), len(free.scenes), options)
    chosen = free.scenes[choice.positions]
    table = _table(free, choice, shapes, [scenes[number].name for number in chosen], legend)
    return Selection(table, chosen, free.corners[choice.positions])


def worth(candidates: Candidates, options: SuggestOptions) -> NDArray[np.float64]:
    """Return the weighted sum of the ranks of uncertainty, disagreement and rarity of each window, (n,)."""
    windows = candidates.windows
    return (
        options.uncertainty_weight * ranks(windows.column(options.criterion))
        + options.disagreement_weight * ranks(windows.column("disagreement"))
        + options.rarity_weight * ranks(rarity(windows.class_pixels))
    )


def _weight_sum(options: SuggestOptions, *, has_novelty: bool) -> float:
    """Return the sum of the weights that count."""
    others = options.uncertainty_weight + options.disagreement_weight + options.rarity_weight
    return (others + options.novelty_weight * has_novelty) or 1.0


def _nothing_left(options: SuggestOptions, *, any_labelled: bool) -> RasterError:
    reasons = [f"has at least {options.min_valid:.0%} valid pixels"]
    reasons += ["is not labelled yet"] if any_labelled else []
    reasons += ["lies in the area of interest"] if options.aoi is not None else []
    remedies = ["lower `min_valid`"] + (["raise `max_labelled`"] if any_labelled else [])
    return RasterError(
        f"There is no window to suggest: none {' and '.join(reasons)}. Give other images, or {' or '.join(remedies)}."
    )


def _tell_if_few(found: int, candidates: int, options: SuggestOptions) -> None:
    if found < options.number:
        limits = [name for name in ("min_distance", "max_per_km2") if getattr(options, name)]
        more = f", `{'` and `'.join(limits)}`" if limits else ""
        logger.warning(
            f"Only {format_count(found, 'window is', 'windows are')} suggested of {options.number}: there are "
            f"{format_count(candidates, 'candidate')}, and no two may overlap{more}."
        )


def _table(
    candidates: Candidates, choice: Choice, shapes: gpd.GeoSeries, images: Sequence[str], legend: Legend
) -> gpd.GeoDataFrame:
    windows, chosen = candidates.windows, choice.positions
    commonest = windows.class_pixels[chosen].argmax(axis=1)
    return gpd.GeoDataFrame(
        {
            "rank": np.arange(1, len(chosen) + 1),
            "score": choice.scores,
            "entropy": windows.column("entropy")[chosen],
            "margin": windows.column("margin")[chosen],
            "disagreement": windows.column("disagreement")[chosen],
            "novelty": choice.novelty,
            "rarity": ranks(rarity(windows.class_pixels))[chosen],
            "predicted_class": [legend.names[channel] for channel in commonest],
            "image": list(images),
            "pixel_row": candidates.corners[chosen, 1],
            "pixel_col": candidates.corners[chosen, 0],
            "status": STATUSES[0].name,
        },
        geometry=shapes.iloc[chosen].to_numpy(),
        crs=shapes.crs,
    )
