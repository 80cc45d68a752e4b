"""Training and validation chips that share no ground: by blocks of it, source images, folders or areas, or k-fold."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path
from typing import TypeAlias

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray

from geopsp.chips.chip_set import ChipSet, class_pixels
from geopsp.data.split_groups import SplitBy, as_list, blocks_of, check_split, random_folds, random_splits
from geopsp.errors import ChipError, OptionError
from geopsp.vector.open import read_vector

logger = logging.getLogger(__name__)

Areas: TypeAlias = str | Path | gpd.GeoDataFrame | Sequence[str | Path | gpd.GeoDataFrame]
"""Polygons: a layer, or several."""


Mask = NDArray[np.bool_]


MAX_CANDIDATES = 48
"""Layouts that are tried; the best is taken."""


MAX_LOOKUPS = 1_000_000
"""Chips to look at in all layouts together: of very many chips fewer layouts are tried, but 8 always."""


SLACK = 1e-6
"""Footprints are shrunk by this share before they are compared, so that edges which merely touch do not overlap."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Rows of the index, by use."""

    train: NDArray[np.intp]
    valid: NDArray[np.intp]
    dropped: NDArray[np.intp]
    """Labelled chips nearer to a validation chip than the gap: in neither part."""

    audit: Audit


@dataclass(frozen=True, slots=True)
class Audit:
    """What the split promises, measured on the footprints. Lengths in CRS units."""

    train: int
    valid: int
    dropped: int
    unlabelled: int
    shared_pixels: int | None
    """Pixels of ground that lie in both a training and a validation chip, each counted once; 0 but in a random split.
    None where the ground of a chip is unknown."""

    gap: float | None
    """Smallest distance between a training and a validation chip; None where the ground of a chip is unknown."""

    missing_in_train: tuple[str, ...]
    missing_in_valid: tuple[str, ...]
    by: str = "blocks"
    """The kind of split, in words."""

    def __str__(self) -> str:
        text = f"{self.train} training and {self.valid} validation chips, "
        if self.shared_pixels is None:
            text += "shared pixels unknown (chips without georeference)"
        else:
            text += f"{self.shared_pixels} pixels shared, nearest pair {self.gap:,.6g} apart"
        text += f"; {self.dropped} chips between them are left out"
        text += f", {self.unlabelled} have no label" if self.unlabelled else ""
        for part, names in (("training", self.missing_in_train), ("validation", self.missing_in_valid)):
            text += f"; not in {part}: {', '.join(names)}" if names else ""
        return f"{text}; split by {self.by}"


@dataclass(frozen=True, slots=True, eq=False)
class _Footprints:
    """The labelled chips, as far as a split looks at them."""

    shapes: NDArray[np.object_]
    """Footprints, None where unknown."""

    slim: NDArray[np.object_]
    """The same, shrunk by `SLACK`."""

    pixels: NDArray[np.int64]
    """(chips, classes)"""

    gap: NDArray[np.float64]
    """(chips,) how far each must be from a validation chip to be trained on; -1: no matter how near."""


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
        raise ChipError(f"Only {len(labelled)} of {len(chips)} chips hold labels; needed at least 2 to split.")
    ground = _ground(chips, labelled, by, gap)
    rng = np.random.default_rng(seed)
    if by in {"areas", "folder"}:
        chosen = _touching(chips, labelled, areas) if areas is not None else _inside(chips, labelled, folders)
        layouts = iter([chosen.astype(int)])
        share = float(chosen.mean())
    elif folds:
        layouts = random_folds(_groupings(chips, labelled, ground, by, block_size, 1 / folds, rng), folds, rng)
        share = 1 / folds
    else:
        layouts = random_splits(
            _groupings(chips, labelled, ground, by, block_size, share, rng), ground.pixels, share, rng
        )
    best = _best(layouts, ground, share, range(folds) if folds else (1,))
    if best is None:
        raise ChipError(_hopeless(len(labelled), by, folds))
    return _result(chips, labelled, best == (fold if folds else 1), ground, f"{by}{_fold_words(folds, fold)}")


def _fold_words(folds: int | None, fold: int) -> str:
    return f" (fold {fold + 1} of {folds})" if folds else ""


def _hopeless(labelled: int, by: SplitBy, folds: int | None) -> str:
    if by == "source":
        return (
            f"The {labelled} labelled chips come from too few images, or from images that overlap too much, to split "
            f"by source{f' into {folds} folds' if folds else ''}. Split by blocks, or label another image."
        )
    if by in {"areas", "folder"}:
        return (
            f"Of {labelled} labelled chips, those that by={by!r} chooses and their neighbourhood leave a part empty. "
            "Choose others, or a smaller gap."
        )
    return (
        f"{labelled} labelled chips lie too close together to split{f' into {folds} folds' if folds else ''}: with a "
        "gap of a chip around any validation block, no chip is left to train on. Export smaller chips (--size), "
        "or label more ground."
    )


# The ground


def _ground(chips: ChipSet, labelled: NDArray[np.intp], by: SplitBy, gap: float | None) -> _Footprints:
    shapes = chips.index.geometry.to_numpy()[labelled]
    unknown = int((shapely.is_missing(shapes) | shapely.is_empty(shapes)).sum())
    if unknown and by in {"blocks", "areas"}:
        raise ChipError(
            f"{unknown} of {len(labelled)} labelled chips have no georeference, so nothing tells which lie side by "
            f"side; by={by!r} needs that. Split by='source' or by='folder', or by='random' if they are no neighbours."
        )
    shapes[shapely.is_empty(shapes)] = None
    side = np.sqrt(np.nan_to_num(shapely.area(shapes)))
    least = {"blocks": side, "areas": side, "random": np.full_like(side, -1.0)}.get(by, np.zeros_like(side))
    slim = _shrunk(shapes)
    shapely.prepare(slim)
    pixels = class_pixels(chips.index, chips.legend)[labelled]
    return _Footprints(shapes, slim, pixels, least if gap is None else np.full_like(side, gap))


def _shrunk(shapes: NDArray[np.object_]) -> NDArray[np.object_]:
    """Each shape drawn together about its own centre."""
    counts = shapely.get_num_coordinates(shapes)
    centres = np.repeat(shapely.get_coordinates(shapely.centroid(shapes[counts > 0])), counts[counts > 0], axis=0)
    slim: NDArray[np.object_] = shapely.transform(shapes, lambda points: points + (centres - points) * SLACK)
    return slim


def _near(ground: _Footprints, valid: Mask) -> Mask:
    """Chips nearer than their gap to a validation chip; those that just reach it are far enough."""
    near = np.zeros(len(valid), bool)
    others = np.flatnonzero(~valid & (ground.gap >= 0))
    if len(others):
        # of distances to all within reach, those beyond the nearest are never asked for
        within = max(float(ground.gap[others].max()), np.finfo(float).tiny)
        (found, _), distance = shapely.STRtree(ground.slim[valid]).query_nearest(
            ground.slim[others], max_distance=within, return_distance=True, all_matches=False
        )
        near[others[found[distance <= ground.gap[others[found]]]]] = True
    return near


# Layouts: which group each chip belongs to, and which groups validate


def _groupings(
    chips: ChipSet, labelled: NDArray[np.intp], ground: _Footprints, by: SplitBy, block_size: float | None,
    share: float,
    rng: np.random.Generator,
) -> Iterator[NDArray[np.intp]]:  # fmt: skip
    """(chips,) numbers of the groups that stay whole, a layout at a time."""
    tries = min(MAX_CANDIDATES, max(8, MAX_LOOKUPS // len(labelled)))
    if by == "blocks":
        return islice(blocks_of(ground.shapes, share, block_size, rng), tries)
    if by == "source":
        return repeat(np.unique(chips.index["source"].to_numpy()[labelled], return_inverse=True)[1], tries)
    logger.warning("a random split puts neighbours into both parts; validation then tells too good a story.")
    return repeat(np.arange(len(labelled)), tries)


def _inside(chips: ChipSet, labelled: NDArray[np.intp], folders: str | Path | Sequence[str | Path] | None) -> Mask:
    """Chips of the folders named."""
    named = as_list(folders or ())
    tables = {folder.resolve(): table for table, folder in enumerate(chips.folders)}
    unknown = [str(folder) for folder in named if Path(folder).resolve() not in tables]
    if unknown or not named:
        raise OptionError(
            f"{', '.join(unknown) or 'No folder'} is to validate on, but the chips are in "
            f"{', '.join(map(str, chips.folders))}. Name one or some of these."
        )
    wanted = [tables[Path(folder).resolve()] for folder in named]
    return np.isin(chips.index["table"].to_numpy()[labelled], wanted)


def _touching(chips: ChipSet, labelled: NDArray[np.intp], areas: Areas) -> Mask:
    """Chips that share more than an edge with the areas."""
    slim = _shrunk(chips.index.geometry.to_numpy()[labelled])
    found = np.zeros(len(labelled), bool)
    for layer in as_list(areas):
        frame, source = read_vector(layer)
        shapes = shapely.make_valid(frame.to_crs(chips.index.crs).geometry.to_numpy())
        touching = shapely.STRtree(shapes).query(slim, predicate="intersects")[0]
        if not len(touching):
            raise ChipError(f"No labelled chip touches the areas of {source}. Check that they lie where the chips are.")
        found[touching] = True
    return found


# The best layout, and what it keeps


def _best(
    layouts: Iterator[NDArray[np.intp]], ground: _Footprints, share: float, parts: Sequence[int]
) -> NDArray[np.intp] | None:
    """The layout of least cost, summed over the parts that validate; None if none leaves both parts something."""
    best, least = None, (np.inf, np.inf)
    for layout in layouts:
        # dropping chips only adds to the cost: what is already too dear needs no look at neighbours
        if _total(layout, ground, share, parts, drop=False) < least:
            cost = _total(layout, ground, share, parts, drop=True)
            if cost < least:
                best, least = layout, cost
    return best


def _total(
    layout: NDArray[np.intp], ground: _Footprints, share: float, parts: Sequence[int], *, drop: bool
) -> tuple[float, float]:
    costs = np.array([_cost(layout == part, ground, share, drop=drop) for part in parts])
    return float(costs[:, 0].sum()), float(costs[:, 1].sum())


def _cost(valid: Mask, ground: _Footprints, share: float, *, drop: bool) -> tuple[float, float]:
    """Classes missing from either part; unlikeness in classes, in size, and the share of chips left out."""
    train = ~valid & ~_near(ground, valid) if drop and valid.any() else ~valid
    if not valid.any() or not train.any():
        return np.inf, np.inf
    total = ground.pixels.sum(axis=0)
    present = total > 0
    missing = sum(int((present & ~(ground.pixels[part] > 0).any(axis=0)).sum()) for part in (train, valid))
    held = ground.pixels[valid].sum(axis=0)
    skew = float(np.abs(held / max(held.sum(), 1) - total / max(total.sum(), 1)).sum()) / 2
    return missing, skew + abs(float(valid.mean()) - share) + float((~(train | valid)).mean())


def _result(chips: ChipSet, labelled: NDArray[np.intp], valid: Mask, ground: _Footprints, by: str) -> Split:
    train = ~valid & ~_near(ground, valid)
    dropped = labelled[~(train | valid)]
    shared, distance = _shared(ground, train, valid, chips.tile_size)
    names = np.array(chips.legend.names)
    missing = [tuple(names[ground.pixels[part].sum(axis=0) == 0].tolist()) for part in (train, valid)]
    counts = (int(train.sum()), int(valid.sum()), len(dropped), len(chips) - len(labelled))
    audit = Audit(*counts, shared, distance, missing[0], missing[1], by)
    assert not shared or by.startswith("random"), audit
    return Split(labelled[train], labelled[valid], dropped, audit)


def _shared(ground: _Footprints, train: Mask, valid: Mask, tile_size: int) -> tuple[int | None, float | None]:
    """Pixels of ground in both parts, and the distance between the parts; None where the ground is unknown."""
    if shapely.is_missing(ground.shapes[train | valid]).any():
        return None, None
    tree = shapely.STRtree(ground.slim[valid])
    ours, theirs = (np.unique(side) for side in tree.query(ground.slim[train], predicate="intersects"))
    if len(ours):
        both = shapely.union_all(ground.shapes[train][ours]), shapely.union_all(ground.shapes[valid][theirs])
        pixel = shapely.area(ground.shapes[valid]).mean() / tile_size**2
        return round(shapely.area(shapely.intersection(*both)) / pixel), 0.0
    tree = shapely.STRtree(ground.shapes[valid])
    _, distance = tree.query_nearest(ground.shapes[train], return_distance=True, all_matches=False)
    return 0, float(distance.min())
