"""Score the windows of all images, row by row, resumed from the journal."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geopsp.active_learning.journal import Journal
from geopsp.active_learning.score_windows import COLUMNS, ScoredWindows, WindowScorer
from geopsp.core.parallel import map_ordered
from geopsp.core.progress import progress_bar
from geopsp.core.text import format_count

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The windows of all scenes that were scored."""

    scenes: NDArray[np.intp]
    """(n,) the scene of each."""

    windows: ScoredWindows

    def where(self, chosen: NDArray[np.bool_]) -> Candidates:
        """Return some of the windows."""
        windows = self.windows
        return Candidates(
            self.scenes[chosen],
            ScoredWindows(windows.numbers[chosen], windows.class_pixels[chosen], windows.features[chosen]),
        )

    @property
    def is_labelled(self) -> NDArray[np.bool_]:
        """(n,) True for windows on labelled ground, which only tell what was seen."""
        return self.windows.column("labelled") > 0

    @property
    def corners(self) -> NDArray[np.intp]:
        """(n, 2) first column and first row."""
        return self.windows.numbers[:, [COLUMNS.index("col"), COLUMNS.index("row")]].astype(np.intp)


def score_images(scorers: Sequence[WindowScorer], journal: Journal, *, threads: int) -> Candidates:
    """Score all windows; rows in the journal are not computed again.

    Raises:
        RasterError: if pixels cannot be read.
    """
    total = sum(len(scorer.grid) for scorer in scorers)
    num_passes = scorers[0].symmetries + 1  # that of shifted tiles; alone, the tile itself
    logger.info(f"Scoring {format_count(total, 'window')}, each in {format_count(num_passes, 'view')}.")
    rows: list[tuple[int, ScoredWindows]] = []
    done = resumed = 0
    with progress_bar("Scoring windows", unit="windows") as progress:
        for number, scorer in enumerate(scorers):
            for row in scorer.grid.rows:
                found = journal.read(number, row, scorer.views.num_classes)
                resumed += found is not None
                if found is None:
                    found = _score_row(scorer, row, threads)
                    journal.write(number, row, found)
                if len(found.numbers):
                    rows.append((number, found))
                done += len(scorer.grid.columns)
                progress(done, total)
    if resumed:
        logger.info(f"{format_count(resumed, 'row')} of windows had been scored before.")
    scenes = np.repeat([number for number, _ in rows], [len(found.numbers) for _, found in rows]).astype(np.intp)
    classes = scorers[0].views.num_classes
    return Candidates(scenes, ScoredWindows.join([found for _, found in rows], classes))


def _score_row(scorer: WindowScorer, row: int, threads: int) -> ScoredWindows:
    predictor = scorer.views.predictor
    with (
        predictor.threads(threads) as pool,
        closing(map_ordered(pool, scorer.score, scorer.grid.chunks(row), in_flight=threads + 1)) as parts,
    ):
        return ScoredWindows.join([part for part in parts if len(part.numbers)], scorer.views.num_classes)
