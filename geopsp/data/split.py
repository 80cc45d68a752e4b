"""Split chips into training and validation chips that do not overlap: by blocks, images, folders, areas, or k-fold."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from geopsp.chips.chip_set import ChipSet, class_pixels
from geopsp.core.addresses import place_of
from geopsp.core.argument_names import did_you_mean_one
from geopsp.core.text import format_count, format_length
from geopsp.data.split_areas import Areas, shrink, touches_areas
from geopsp.data.split_audit import Audit
from geopsp.data.split_groups import SplitBy, as_list, check_split, random_folds, random_splits, spatial_blocks
from geopsp.errors import ChipError, OptionError

logger = logging.getLogger(__name__)


Mask = NDArray[np.bool_]


MAX_CANDIDATES = 48
"""Layouts that are tried; the best is taken."""


MAX_LOOKUPS = 1_000_000
"""Chips that are compared in all layouts together: with very many chips fewer layouts are tried, but at least 8."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Rows of the chip index, by use."""

    train: NDArray[np.intp]
    valid: NDArray[np.intp]
    dropped: NDArray[np.intp]
    """Labelled chips in neither part: they are nearer to a validation chip than the gap."""

    audit: Audit


@dataclass(frozen=True, slots=True, eq=False)
class _Footprints:
    """Footprints and labels of the labelled chips."""

    shapes: NDArray[np.object_]
    """Polygons; None without georeference."""

    shrunk: NDArray[np.object_]
    """The same, shrunk by `SHRINK`."""

    pixels: NDArray[np.int64]
    """(chips, classes)"""

    gap: NDArray[np.float64]
    """(chips,) distance that a training chip must have from validation chips; -1: any, even overlapping."""


def split_chips(
    chips: ChipSet,
    *,
    share: float,
    seed: int,
    by: SplitBy = "blocks",
    block_size: float | None = None,
    gap: float | None = None,
    areas: Areas | None = None,
    folders: str | Path | Sequence[str | Path] | None = None,
    folds: int | None = None,
    fold: int = 0,
) -> Split:
    """Training and validation chips that lie at least `gap` apart; those between them are used for neither.

    Of several layouts the one is taken in which fewest classes are missing from either part; then the one whose
    validation is most like the whole in its classes, nearest to the share, and leaves out the fewest chips.

    With `folds`, each labelled chip validates in exactly one of the k folds, whatever the gap: a gap only takes
    chips from the training part of a fold. The folds of one seed belong together; the share is then 1 / k.

    Args:
        chips: The chips to split.
        share: Share of the labelled chips for validation, above 0 and below 1; "folder" and "areas" take what is named.
        seed: Another seed tries other layouts.
        by: What goes to one side as a whole: "blocks" of ground, each "source" image, each "folder", what touches
            `areas`; "random" takes single chips, and a warning is printed, because neighbours look alike.
        block_size: Side of a block in CRS units; None: several sizes are tried.
        gap: Least distance in CRS units between the parts; None: a chip's side for blocks and areas, 0 for sources
            and folders, which merely may not overlap.
        areas: Polygons, one layer or several; the chips that touch them validate.
        folders: The chip folders to validate on.
        folds: Number of folds; None: one split.
        fold: Which of them validates, from 0.

    Raises:
        OptionError: if an option is out of range or would do nothing.
        ChipError: if a part would be empty, or blocks or areas are asked of chips without georeference.
    """
    check_split(
        share=share,
        seed=seed,
        by=by,
        block_size=block_size,
        gap=gap,
        areas=areas,
        folders=folders,
        folds=folds,
        fold=fold,
    )
    labelled = np.flatnonzero(chips.index["labelled"].to_numpy() > 0)
    if len(labelled) < 2:
        raise ChipError(
            f"Found {len(labelled)} labelled among {format_count(len(chips), 'chip')}, but a split needs at least 2. "
            "Label more, or export more chips."
        )
    footprints = _footprints(chips, labelled, by, gap)
    rng = np.random.default_rng(seed)
    if by in {"areas", "folder"}:
        chosen = touches_areas(chips, labelled, areas) if areas is not None else _in_folders(chips, labelled, folders)
        layouts = iter([chosen.astype(int)])
        share = float(chosen.mean())
    elif folds:
        groups = _candidate_groups(chips, labelled, footprints, by, block_size, 1 / folds, rng)
        layouts = random_folds(groups, folds, rng)
        share = 1 / folds
    else:
        groups = _candidate_groups(chips, labelled, footprints, by, block_size, share, rng)
        layouts = random_splits(groups, footprints.pixels, share, rng)
    best = _best_layout(layouts, footprints, share, range(folds) if folds else (1,))
    if best is None:
        hint = _length_hint(chips.units, block_size=block_size, gap=gap)
        raise ChipError(_no_split_message(len(labelled), by, folds) + hint)
    return _result(chips, labelled, best == (fold if folds else 1), footprints, f"{by}{_fold_words(folds, fold)}")


def _fold_words(folds: int | None, fold: int) -> str:
    return f" (fold {fold + 1} of {folds})" if folds else ""


def _length_hint(unit: str, **lengths: float | None) -> str:
    """Return what the lengths that the user gave are in the CRS of the chips; metres may be meant in degrees."""
    given = [f"`{name}` is {format_length(length, unit)}" for name, length in lengths.items() if length is not None]
    return f" {' and '.join(given)}, in the unit of the CRS." if given else ""


def _no_split_message(labelled: int, by: SplitBy, folds: int | None) -> str:
    into_folds = f" into {folds} folds" if folds else ""
    if by == "source":
        return (
            f"The {labelled} labelled chips come from too few images, or from images that overlap too much, to split "
            f"by source image{into_folds}. Split by blocks, or label another image."
        )
    if by in {"areas", "folder"}:
        return (
            f"Of {labelled} labelled chips, none is left for training or none for validation. Choose other "
            f"{'areas' if by == 'areas' else 'folders'}, or lower `gap`."
        )
    return (
        f"{labelled} labelled chips lie too close together to split{into_folds}: with the gap around a validation "
        "block, no chip is left for training. Export smaller chips (`tile_size`), or label a larger area."
    )


# Footprints


def _footprints(chips: ChipSet, labelled: NDArray[np.intp], by: SplitBy, gap: float | None) -> _Footprints:
    shapes = chips.index.geometry.to_numpy()[labelled]
    unknown = int((shapely.is_missing(shapes) | shapely.is_empty(shapes)).sum())
    if unknown and by in {"blocks", "areas"}:
        raise ChipError(
            f"{unknown} of {format_count(len(labelled), 'labelled chip')} have no georeference, which a split by {by} "
            "needs. Split by image (`split='source'`) or by folder, or at random if no chips are neighbours."
        )
    shapes[shapely.is_empty(shapes)] = None
    side = np.sqrt(np.nan_to_num(shapely.area(shapes)))
    default = {"blocks": side, "areas": side, "random": np.full_like(side, -1.0)}.get(by, np.zeros_like(side))
    shrunk = shrink(shapes)
    shapely.prepare(shrunk)
    pixels = class_pixels(chips.index, chips.legend)[labelled]
    return _Footprints(shapes, shrunk, pixels, default if gap is None else np.full_like(side, gap))


def _within_gap(footprints: _Footprints, valid: Mask) -> Mask:
    """Return True for chips nearer to a validation chip than their gap; at exactly the gap a chip is far enough."""
    near = np.zeros(len(valid), bool)
    others = np.flatnonzero(~valid & (footprints.gap >= 0))
    if len(others):
        # bounding the search by the largest gap saves looking for the nearest chip of those far away
        reach = max(float(footprints.gap[others].max()), np.finfo(float).tiny)
        (found, _), distance = shapely.STRtree(footprints.shrunk[valid]).query_nearest(
            footprints.shrunk[others], max_distance=reach, return_distance=True, all_matches=False
        )
        near[others[found[distance <= footprints.gap[others[found]]]]] = True
    return near


# Layouts: the group of each chip, and the groups of the validation part


def _candidate_groups(
    chips: ChipSet, labelled: NDArray[np.intp], footprints: _Footprints, by: SplitBy, block_size: float | None,
    share: float,
    rng: np.random.Generator,
) -> Iterator[NDArray[np.intp]]:  # fmt: skip
    """Yield (chips,) numbers of the groups that stay together, once for each layout."""
    tries = min(MAX_CANDIDATES, max(8, MAX_LOOKUPS // len(labelled)))
    if by == "blocks":
        return islice(spatial_blocks(footprints.shapes, share, block_size, rng), tries)
    if by == "source":
        return repeat(np.unique(chips.index["source"].to_numpy()[labelled], return_inverse=True)[1], tries)
    logger.warning(
        "A random split puts neighbouring chips in both training and validation, so validation scores will be too "
        "optimistic."
    )
    return repeat(np.arange(len(labelled)), tries)


def _in_folders(chips: ChipSet, labelled: NDArray[np.intp], folders: str | Path | Sequence[str | Path] | None) -> Mask:
    """Return True for the chips of these folders."""
    paths = as_list(folders or ())
    tables = {place_of(folder): table for table, folder in enumerate(chips.folders)}
    unknown = [str(folder) for folder in paths if place_of(folder) not in tables]
    if unknown or not paths:
        found = f"{', '.join(unknown)} is not among" if unknown else "No validation folder is given; there are"
        raise OptionError(
            f"{found} the chip folders {', '.join(map(str, chips.folders))}."
            f"{did_you_mean_one(unknown, chips.folders)} Name one or several of these for validation."
        )
    wanted = [tables[place_of(folder)] for folder in paths]
    return np.isin(chips.index["table"].to_numpy()[labelled], wanted)


# The best layout, and the split that it gives


def _best_layout(
    layouts: Iterator[NDArray[np.intp]], footprints: _Footprints, share: float, folds: Sequence[int]
) -> NDArray[np.intp] | None:
    """Return the layout of least cost, summed over the folds; None if all leave a part empty."""
    best, least = None, (np.inf, np.inf)
    for layout in layouts:
        # dropping chips only adds to the cost: skip the neighbour search if the layout already costs more
        if _layout_cost(layout, footprints, share, folds, drop=False) < least:
            cost = _layout_cost(layout, footprints, share, folds, drop=True)
            if cost < least:
                best, least = layout, cost
    return best


def _layout_cost(
    layout: NDArray[np.intp], footprints: _Footprints, share: float, folds: Sequence[int], *, drop: bool
) -> tuple[float, float]:
    costs = np.array([_split_cost(layout == fold, footprints, share, drop=drop) for fold in folds])
    return float(costs[:, 0].sum()), float(costs[:, 1].sum())


def _split_cost(valid: Mask, footprints: _Footprints, share: float, *, drop: bool) -> tuple[float, float]:
    """Return the number of classes missing in either part; and the sum of differences, as shares.

    These are between the classes of validation and of all chips, between the size of validation and `share`, and the
    share of dropped chips.
    """
    train = ~valid & ~_within_gap(footprints, valid) if drop and valid.any() else ~valid
    if not valid.any() or not train.any():
        return np.inf, np.inf
    total = footprints.pixels.sum(axis=0)
    present = total > 0
    missing = sum(int((present & ~(footprints.pixels[part] > 0).any(axis=0)).sum()) for part in (train, valid))
    validated = footprints.pixels[valid].sum(axis=0)
    skew = float(np.abs(validated / max(validated.sum(), 1) - total / max(total.sum(), 1)).sum()) / 2
    return missing, skew + abs(float(valid.mean()) - share) + float((~(train | valid)).mean())


def _result(chips: ChipSet, labelled: NDArray[np.intp], valid: Mask, footprints: _Footprints, by: str) -> Split:
    train = ~valid & ~_within_gap(footprints, valid)
    dropped = labelled[~(train | valid)]
    shared, distance = _overlap(footprints, train, valid, chips.tile_size)
    names = np.array(chips.legend.names)
    missing = [tuple(names[footprints.pixels[part].sum(axis=0) == 0].tolist()) for part in (train, valid)]
    counts = (int(train.sum()), int(valid.sum()), len(dropped), len(chips) - len(labelled))
    audit = Audit(*counts, shared, distance, missing[0], missing[1], by, chips.units)
    assert not shared or by.startswith("random"), audit
    return Split(labelled[train], labelled[valid], dropped, audit)


def _overlap(footprints: _Footprints, train: Mask, valid: Mask, tile_size: int) -> tuple[int | None, float | None]:
    """Return the pixels that lie in both parts, and the distance between the parts; None without georeference."""
    if shapely.is_missing(footprints.shapes[train | valid]).any():
        return None, None
    tree = shapely.STRtree(footprints.shrunk[valid])
    in_train, in_valid = (np.unique(rows) for rows in tree.query(footprints.shrunk[train], predicate="intersects"))
    if len(in_train):
        both = (
            shapely.union_all(footprints.shapes[train][in_train]),
            shapely.union_all(footprints.shapes[valid][in_valid]),
        )
        pixel_area = shapely.area(footprints.shapes[valid]).mean() / tile_size**2
        return round(shapely.area(shapely.intersection(*both)) / pixel_area), 0.0
    tree = shapely.STRtree(footprints.shapes[valid])
    _, distance = tree.query_nearest(footprints.shapes[train], return_distance=True, all_matches=False)
    return 0, float(distance.min())
