"""Score the windows of a scene, a few at a time: their measures and features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from geopsp.active_learning.candidates import Chunk, LabelledGround, Pixels, WindowGrid, read_pixels
from geopsp.active_learning.measures import ViewSum, WindowMeasures
from geopsp.active_learning.tile_views import ORDERED_SYMMETRIES, Floats, TileViews, View
from geopsp.core.grid import Window
from geopsp.labels.area import AreaOfInterest
from geopsp.raster.scene import Scene

COLUMNS = ("col", "row", "labelled", "entropy", "margin", "disagreement")
"""Numbers of a window, in this order: its place, 1 if it is labelled already, and what is measured."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoredWindows:
    """Windows of one scene, with what was measured."""

    numbers: NDArray[np.float64]
    """(n, len(COLUMNS))"""

    class_pixels: NDArray[np.int64]
    """(n, classes) valid pixels by predicted channel."""

    features: Floats
    """(n, d); d is 0 for a network without features."""

    @classmethod
    def join(cls, parts: Sequence[ScoredWindows], classes: int) -> ScoredWindows:
        """Return the windows of all parts; there may be none."""
        if not parts:
            return cls(np.zeros((0, len(COLUMNS))), np.zeros((0, classes), np.int64), np.zeros((0, 0), np.float32))
        width = max(part.features.shape[1] for part in parts)
        features = [part.features if len(part.features) else np.zeros((0, width), np.float32) for part in parts]
        return cls(
            np.concatenate([part.numbers for part in parts]),
            np.concatenate([part.class_pixels for part in parts]),
            np.concatenate(features),
        )

    def column(self, name: str) -> NDArray[np.float64]:
        """Return one number of all windows."""
        return self.numbers[:, COLUMNS.index(name)]


@dataclass(frozen=True, slots=True, eq=False)
class WindowScorer:
    """All that is needed to score the windows of a scene."""

    scene: Scene
    area: AreaOfInterest | None
    grid: WindowGrid
    views: TileViews
    symmetries: int
    """Symmetries that are predicted; 0: the tile itself, and no shifted tiles."""

    min_valid: float
    max_labelled: float
    labelled: LabelledGround | None
    num_possible: int
    """Classes that the model may predict."""

    def score(self, chunk: Chunk) -> ScoredWindows:
        """Score the windows of a chunk that have enough valid pixels; of labelled ones only the features.

        Raises:
            RasterError: if pixels cannot be read.
        """
        windows = [window for window in self.windows(chunk) if not self.scene.known_empty(window)]
        if not windows:
            return ScoredWindows.join([], self.views.num_classes)
        pixels = self._read(windows)
        kept = [window for window in windows if self._has_valid(pixels, window)]
        is_labelled = [self._is_labelled(window) for window in kept]
        if self.labelled is not None and (self.labelled.chips is not None or not self.views.has_features):
            kept = [window for window, known in zip(kept, is_labelled, strict=True) if not known]
            is_labelled = [False] * len(kept)
        if not kept:
            return ScoredWindows.join([], self.views.num_classes)
        sums, features = self._sums(pixels, kept, is_labelled)
        found = [
            view_sum.measures(pixels.crop(window)[1], self.num_possible)
            for view_sum, window in zip(sums, kept, strict=True)
        ]
        numbers = [_numbers(*each) for each in zip(kept, is_labelled, found, strict=True)]
        return ScoredWindows(np.array(numbers, float), np.stack([each.class_pixels for each in found]), features)

    def windows(self, chunk: Chunk) -> Iterator[Window]:
        """Yield the windows of a chunk."""
        for col in chunk.columns:
            yield Window(col, chunk.row, self.grid.size, self.grid.size)

    def mean_probabilities(self, window: Window) -> tuple[Floats, NDArray[np.bool_]]:
        """Return the mean probabilities of a window over its views, (classes, s, s), and its valid mask."""
        pixels = self._read([window])
        (found,), _ = self._sums(pixels, [window], [False])
        return found.mean(), pixels.crop(window)[1]

    def _read(self, windows: Sequence[Window]) -> Pixels:
        """Read windows of a row, with half a window more on both sides, for shifted tiles."""
        first, last = windows[0], windows[-1]
        margin = self.grid.size // 2 if self.symmetries else 0
        whole = Window(first.col - margin, first.row, last.col_stop - first.col + 2 * margin, first.height)
        return read_pixels(self.scene, whole, self.area)

    def _has_valid(self, pixels: Pixels, window: Window) -> bool:
        valid = pixels.crop(window)[1]
        return bool(valid.any()) and float(valid.mean()) >= self.min_valid

    def _is_labelled(self, window: Window) -> bool:
        if self.labelled is None:
            return False
        return self.labelled.fraction(self.scene.grid.crop(window)) > self.max_labelled

    def _sums(
        self, pixels: Pixels, windows: Sequence[Window], is_labelled: Sequence[bool]
    ) -> tuple[list[ViewSum], Floats]:
        """Return the sums over the views of each window, and the features, (n, d)."""
        sums = [ViewSum(self.views.num_classes, self.grid.size) for _ in windows]
        features: dict[int, Floats] = {}
        tiles = self._tiles(windows, is_labelled)
        while batch := list(islice(tiles, self.views.predictor.batch_size)):
            found, batch_features = self.views.predict(
                [View(*pixels.crop(window), ORDERED_SYMMETRIES[symmetry]) for window, symmetry, _ in batch]
            )
            for position, (tile, symmetry, targets) in enumerate(batch):
                for number in targets:
                    _add(sums[number], windows[number], tile, found[position])
                if batch_features is not None and tile == windows[targets[0]] and symmetry == 0:
                    features[targets[0]] = batch_features[position]
        if not features:
            return sums, np.zeros((len(windows), 0), np.float32)
        return sums, np.stack([features[number] for number in range(len(windows))])

    def _tiles(
        self, windows: Sequence[Window], is_labelled: Sequence[bool]
    ) -> Iterator[tuple[Window, int, tuple[int, ...]]]:
        """Yield each tile to predict, the number of its symmetry, and the positions of the windows that it belongs to.

        Tiles that are shifted by half a window overlap one window or two. They stay inside the scene, where there is
        room, as the tiles of a map do.
        """
        shifted: dict[Window, list[int]] = {}
        for number, (window, known) in enumerate(zip(windows, is_labelled, strict=True)):
            yield window, 0, (number,)
            if known or not self.symmetries:
                continue
            for symmetry in range(1, self.symmetries):
                yield window, symmetry, (number,)
            for shift in (-(self.grid.size // 2), self.grid.size // 2):
                tile = window.shift(shift, 0)
                if tile.col >= 0 and tile.col_stop <= max(self.scene.grid.width, window.col_stop):
                    shifted.setdefault(tile, []).append(number)
        for tile, numbers in shifted.items():
            yield tile, 0, tuple(numbers)


def _add(view_sum: ViewSum, window: Window, tile: Window, probabilities: Floats) -> None:
    """Add the part of a tile that lies in a window of the same rows."""
    shared = tile.intersect(window)
    source, target = shared.slices(tile)[1], shared.slices(window)[1]
    view_sum.add(probabilities[..., source], target)


def _numbers(window: Window, is_labelled: bool, found: WindowMeasures) -> tuple[float, ...]:
    return window.col, window.row, is_labelled, found.entropy, found.margin, found.disagreement
