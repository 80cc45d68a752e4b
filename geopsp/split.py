"""Training and validation chips that share no ground, not even a neighbourhood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from geopsp.chipset import ChipSet, class_pixels
from geopsp.errors import ChipError, OptionError

CANDIDATES = 48
"""Block layouts that are tried; the best is taken."""


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
    shared_pixels: int
    """Pixels that lie in both a training and a validation chip; 0 unless the split is broken."""

    gap: float
    """Smallest distance between a training and a validation chip."""

    missing_in_train: tuple[str, ...]
    missing_in_valid: tuple[str, ...]

    def __str__(self) -> str:
        text = (
            f"{self.train} training and {self.valid} validation chips, {self.shared_pixels} pixels shared, "
            f"nearest pair {self.gap:,.6g} apart; {self.dropped} chips between them are left out"
        )
        text += f", {self.unlabelled} have no label" if self.unlabelled else ""
        for part, names in (("training", self.missing_in_train), ("validation", self.missing_in_valid)):
            text += f"; not in {part}: {', '.join(names)}" if names else ""
        return text


def split_chips(chips: ChipSet, *, share: float, seed: int) -> Split:
    """Whole blocks of ground for validation, and around them a gap of a chip's size that is used for neither.

    Of several block layouts the one is taken in which fewest classes are missing from either part; then the one
    whose validation is most like the whole in its classes, nearest to the share, and leaves out the fewest chips.

    Args:
        chips: The chips to split.
        share: Share of the labelled chips for validation, above 0 and below 1.
        seed: Another seed tries other layouts.

    Raises:
        OptionError: if the share is out of range.
        ChipError: if the chips lie too close together to leave both parts something.
    """
    if not 0 < share < 1:
        raise OptionError(f"val_split_pct is {share}; needed a share above 0 and below 1.")
    labelled = np.flatnonzero(chips.index["labelled"].to_numpy() > 0)
    if len(labelled) < 2:
        raise ChipError(f"Only {len(labelled)} of {len(chips)} chips hold labels; needed at least 2 to split.")
    shapes = chips.index.geometry.to_numpy()[labelled]
    pixels = class_pixels(chips.index, chips.legend)[labelled]
    best = _best_layout(shapes, pixels, share, np.random.default_rng(seed))
    if best is None:
        raise ChipError(
            f"{len(labelled)} labelled chips lie too close together to split: with a gap of a chip around any "
            "validation block, no chip is left to train on. Export smaller chips (--size), or label more ground."
        )
    train, valid = best
    dropped = labelled[~(train | valid)]
    audit = _audit(chips, labelled[train], labelled[valid], len(dropped), len(chips) - len(labelled))
    assert audit.shared_pixels == 0, audit
    return Split(labelled[train], labelled[valid], dropped, audit)


def _best_layout(
    shapes: NDArray[np.object_], pixels: NDArray[np.int64], share: float, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
    """(chips,) masks of training and validation chips."""
    total = pixels.sum(axis=0)
    present = total > 0
    best, best_cost = None, np.inf
    for _ in range(CANDIDATES):
        valid = _blocks(shapes, share, rng)
        train = ~valid & ~_near(shapes, valid)
        if not valid.any() or not train.any():
            continue
        missing = sum(int((present & ~(pixels[part] > 0).any(axis=0)).sum()) for part in (train, valid))
        held = pixels[valid].sum(axis=0)
        skew = float(np.abs(held / max(held.sum(), 1) - total / total.sum()).sum()) / 2
        cost = missing + skew + abs(float(valid.mean()) - share) + float((~(train | valid)).mean())
        if cost < best_cost:
            best, best_cost = (train, valid), cost
    return best


def _blocks(shapes: NDArray[np.object_], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Chips whose centres lie in randomly drawn squares of ground, until the share is reached."""
    centres = shapely.get_coordinates(shapely.centroid(shapes))
    span = np.sqrt(shapely.area(shapes).mean())
    chips_a_block = max(1.0, len(shapes) * share / rng.integers(1, 5))
    side = span * np.ceil(np.sqrt(chips_a_block))
    block = np.floor((centres - centres.min(axis=0)) / side + rng.random(2)).astype(int)
    _, of_chip = np.unique(block, axis=0, return_inverse=True)
    order = rng.permutation(of_chip.max() + 1)
    sizes = np.bincount(of_chip)[order]
    taken = max(1, int(np.searchsorted(np.cumsum(sizes), len(shapes) * share, side="left")) + 1)
    return np.isin(of_chip, order[:taken])


def _near(shapes: NDArray[np.object_], valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Chips nearer than a chip's side to a validation chip; those that just reach it are far enough."""
    others = np.flatnonzero(~valid)
    gap = np.sqrt(shapely.area(shapes[others])) * (1 - 1e-6)
    tree = shapely.STRtree(shapes[valid])
    near = np.zeros(len(shapes), bool)
    near[others[tree.query(shapes[others], predicate="dwithin", distance=gap)[0]]] = True
    return near


def _audit(chips: ChipSet, train: NDArray[np.intp], valid: NDArray[np.intp], dropped: int, unlabelled: int) -> Audit:
    shapes = chips.index.geometry.to_numpy()
    tree = shapely.STRtree(shapes[valid])
    ours, theirs = tree.query(shapes[train], predicate="intersects")
    overlap = shapely.area(shapely.intersection(shapes[train][ours], shapes[valid][theirs])).sum()
    _, distance = tree.query_nearest(shapes[train], return_distance=True, all_matches=False)
    pixels = class_pixels(chips.index, chips.legend)
    missing = [tuple(np.array(chips.legend.names)[pixels[part].sum(axis=0) == 0].tolist()) for part in (train, valid)]
    cell = chips.cell_size[0] * chips.cell_size[1]
    return Audit(len(train), len(valid), dropped, unlabelled, round(overlap / cell), float(distance.min()), *missing)
