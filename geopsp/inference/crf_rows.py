"""The CRF on blended rows, top down, in strips: each with as many rows around it as its result depends on.

So a pixel's result depends neither on the strips nor on the window: the cut into parts cannot be seen.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np

from geopsp.core.grid import Window
from geopsp.inference.blend import SUM_ONE
from geopsp.inference.part_size import MIN_STRIP_ROWS
from geopsp.inference.rolling_rows import BlendedRows
from geopsp.inference.tile_ops import Array, TileOps
from geopsp.models.crf import CRFParameters

STRIP_BYTES = 384e6
"""Bytes that a strip takes, if its halo lets it."""

MAX_STRIP_ROWS = 512
"""Largest number of rows of a strip, without its halo."""


def strip_rows(crf: CRFParameters, width: int, classes: int, bands: int) -> int:
    """Return the rows of a strip without its halo."""
    rows = STRIP_BYTES / (width * crf.bytes_per_pixel(classes, bands)) - 2 * crf.halo
    return int(min(max(rows, MIN_STRIP_ROWS), MAX_STRIP_ROWS))


def strip_bytes(crf: CRFParameters, width: int, classes: int, bands: int) -> int:
    """Return the bytes that a strip takes."""
    rows = strip_rows(crf, width, classes, bands) + 2 * crf.halo
    return rows * width * crf.bytes_per_pixel(classes, bands)


def refine_rows(
    blended: Iterable[tuple[int, BlendedRows | None]],
    wider: Window,
    window: Window,
    crf: CRFParameters,
    *,
    ops: TileOps,
    excluded: Sequence[int] = (),
    threads: int = 1,
    rows_at_once: int | None = None,
) -> Generator[tuple[int, BlendedRows | None], None, None]:
    """Yield the rows of a window after mean-field inference: numbers of rows and content, None where nothing is valid.

    Args:
        blended: The rows of the wider window, with sums of all pixels and image.
        wider: The window with the CRF's halo around it, as far as the map reaches.
        window: What is yielded.
        crf: The parameters.
        ops: Of the device that the rows are on.
        excluded: Channels that are never predicted.
        threads: Threads that the CPU takes.
        rows_at_once: Rows of a strip without its halo; None: as suits the memory.
    """
    strip: _Strip | None = None
    unseen = 0
    with ThreadPoolExecutor(threads, "geopsp-crf") if threads > 1 else nullcontext() as pool:
        for count, piece in blended:
            if strip is None and piece is None:
                unseen += count
                continue
            if strip is None and piece is not None:
                strip = _Strip(wider, window, crf, piece, ops, excluded, pool, rows_at_once)
                yield from strip.append(unseen, None)
            assert strip is not None
            yield from strip.append(count, piece)
    if strip is None:
        yield window.height, None


class _Strip:
    """Rows that later ones still depend on."""

    def __init__(
        self,
        wider: Window,
        window: Window,
        crf: CRFParameters,
        example: BlendedRows,
        ops: TileOps,
        excluded: Sequence[int],
        pool: Executor | None,
        rows_at_once: int | None,
    ) -> None:
        assert example.sums is not None
        assert example.image is not None
        assert example.sums is not None
        classes, bands = len(example.sums), len(example.image)
        self._wider, self._window, self._crf = wider, window, crf
        self._ops, self._excluded, self._pool = ops, list(excluded), pool
        rows = (rows_at_once or strip_rows(crf, wider.width, classes, bands)) + 2 * crf.halo
        shape = (min(rows, wider.height), wider.width)
        self._sums = ops.zeros((classes, *shape))
        self._image = ops.zeros((bands, *shape), "float32")
        self._valid = np.zeros(shape, bool)
        self._agreement: Array | None = None
        if example.agreement is not None:
            self._agreement = ops.zeros(shape)
        self._first = self._stop = wider.row
        """Rows of the map that are held."""

        self._next = window.row
        """The next row that is yielded."""

    def append(self, count: int, piece: BlendedRows | None) -> Generator[tuple[int, BlendedRows | None], None, None]:
        """Add rows; yield those that no later row can change, whenever the strip is full."""
        done = 0
        while done < count:
            held = self._stop - self._first
            taken = min(count - done, self._valid.shape[0] - held)
            self._fill(slice(held, held + taken), piece, slice(done, done + taken))
            done, self._stop = done + taken, self._stop + taken
            if self._stop - self._first == self._valid.shape[0] or self._stop == self._wider.row_stop:
                yield from self._refined()

    def _stores(self) -> list[Array]:
        return [each for each in (self._sums, self._image, self._agreement) if each is not None]

    def _fill(self, rows: slice, piece: BlendedRows | None, source: slice) -> None:
        if piece is None:
            self._valid[rows] = False
            return
        self._valid[rows] = piece.valid[source]
        given = (piece.sums, piece.image, piece.agreement)
        for store, values in zip(self._stores(), [each for each in given if each is not None], strict=True):
            store[..., rows, :] = values[..., source, :]

    def _refined(self) -> Generator[tuple[int, BlendedRows | None], None, None]:
        """Yield all rows that are certain now, and forget what no later one depends on."""
        at_end = self._stop == self._wider.row_stop
        stop = self._window.row_stop if at_end else min(self._stop - self._crf.halo, self._window.row_stop)
        if stop > self._next:
            rows = slice(self._next - self._first, stop - self._first)
            if self._valid[rows].any():
                yield from self._inferred(rows)
            else:
                yield stop - self._next, None
            self._next = stop
        drop = min(max(self._next - self._crf.halo - self._first, 0), self._stop - self._first)
        keep = self._stop - self._first - drop
        for store in self._stores():
            store[..., :keep, :] = self._ops.copy(store[..., drop : drop + keep, :])
        self._valid[:keep] = self._valid[drop : drop + keep].copy()
        self._first += drop

    def _inferred(self, core: slice) -> Generator[tuple[int, BlendedRows | None], None, None]:
        """Yield rows of the strip after mean-field inference, some at a time."""
        held = slice(0, self._stop - self._first)
        refined = self._ops.mean_field(
            self._ops.fractions(self._sums[:, held], SUM_ONE),
            self._image[:, held],
            self._valid[held],
            self._crf,
            excluded=self._excluded,
            core=core,
            pool=self._pool,
        )
        left = self._window.col - self._wider.col
        cols = slice(left, left + self._window.width)
        step = self._ops.rows_at_once(4 * len(self._sums) * self._window.width)
        for first in range(0, refined.shape[1], step):
            chosen = slice(first, min(first + step, refined.shape[1]))
            rows = slice(core.start + chosen.start, core.start + chosen.stop)
            sums = self._ops.whole_numbers(refined[:, chosen, cols], SUM_ONE)
            index = self._ops.zeros(sums.shape[1:], "uint8")
            self._ops.argmax(sums, index)
            agreement = None if self._agreement is None else self._agreement[rows, cols]
            valid = self._valid[rows, cols].copy()
            yield chosen.stop - chosen.start, BlendedRows(index, valid, sums, agreement, self._ops)
