"""Classes by agreement are those of the sums of scores, to the byte."""

from __future__ import annotations

import numpy as np
import pytest
from common import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st
from inference_common import numba_ops

from geopsp.core.grid import Window
from geopsp.errors import ModelError
from geopsp.inference.blend import BlendBuffer
from geopsp.inference.class_buffer import ClassBuffer, classify_tile, holds_less_than_sums
from geopsp.inference.tile_plan import TilePlan, weights
from geopsp.inference.tile_scores import score_tile

SIZE = 32
OPS = numba_ops()


def random_tile(rng, classes, kind):
    """Logits (classes, s, s) that tie often, or hardly ever; and the valid mask."""
    logits = rng.normal(0, 2, (classes, SIZE, SIZE)).astype(np.float32)
    if kind == "ties":
        logits = np.round(logits)
    if kind == "excluded":
        logits[0] = -np.inf
    return logits, rng.random((SIZE, SIZE)) < 0.9


def blended(buffer, plan, window, tiles, *, deferred):
    """Return the classes and the valid mask of the window, 255 where it is False."""
    found = []

    def keep(pieces):
        for count, rows in pieces:
            if rows is None:
                found.append((np.zeros((count, window.width), np.uint8), np.zeros((count, window.width), bool)))
            else:
                found.append((np.array(rows.index), np.array(rows.valid)))

    for row, cols in plan.tiles(window):
        for col in cols:
            if tiles[row, col] is None:
                continue
            logits, valid = tiles[row, col]
            edges = plan.edges(row, col)
            scored = classify_tile(logits, edges) if deferred else score_tile(logits, edges, OPS, everywhere=False)
            keep(buffer.finish_rows(row))
            buffer.add(Window(col, row, SIZE, SIZE), valid, scored, weights(*edges))
    keep(buffer.finish_rows(window.row_stop))
    index, valid = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return np.where(valid, index, 255), valid


@given(
    sides=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    overlap=st.integers(0, SIZE // 2),
    cut=st.tuples(*(st.floats(0, 1) for _ in range(4))),
    classes=st.sampled_from([2, 5]),
    kind=st.sampled_from(["plain", "ties", "excluded"]),
    missing=st.sampled_from([0, 0.3]),
    seed=st.integers(0, 99),
)
@example(sides=(100, 100), overlap=16, cut=(0, 0, 1, 1), classes=5, kind="ties", missing=0, seed=0)
@example(sides=(100, 100), overlap=4, cut=(0, 0, 1, 1), classes=2, kind="plain", missing=0.3, seed=0)
@settings(max_examples=examples(40), deadline=None)
def test_classes_are_those_of_the_sums(sides, overlap, cut, classes, kind, missing, seed):
    rng = np.random.default_rng(seed)
    plan = TilePlan(*sides, SIZE, overlap)
    tiles = {
        (row, col): None if rng.random() < missing else random_tile(rng, classes, kind)
        for row in plan.rows
        for col in plan.cols
    }
    col, row = (int(part * (side - 1)) for part, side in zip(cut, sides, strict=False))
    width, height = (
        max(1, int(part * (side - first))) for part, side, first in zip(cut[2:], sides, (col, row), strict=True)
    )
    window = Window(col, row, width, height)
    summed = BlendBuffer(plan, window, classes, OPS, needs_scores=False, needs_agreement=False)
    expected, expected_valid = blended(summed, plan, window, tiles, deferred=False)
    found, valid = blended(ClassBuffer(plan, window, classes, OPS), plan, window, tiles, deferred=True)
    known = np.zeros((sides[1] + SIZE, sides[0] + SIZE), bool)
    for (top, left), tile in tiles.items():
        if tile is not None:
            known[top : top + SIZE, left : left + SIZE] = tile[1]
    assert np.array_equal(valid, known[row : row + height, col : col + width])
    assert np.array_equal(valid, expected_valid)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("at", [(0, 0, 0), (1, 31, 31)])
def test_logits_that_are_not_finite_are_an_error(bad, at):
    logits = np.zeros((2, SIZE, SIZE), np.float32)
    logits[at] = bad
    plan = TilePlan(SIZE, SIZE, SIZE, 0)
    with pytest.raises(ModelError, match="not finite"):
        classify_tile(logits, plan.edges(0, 0))


def test_no_class_at_all_is_an_error():
    logits = np.zeros((2, SIZE, SIZE), np.float32)
    logits[:, 3, 4] = -np.inf
    with pytest.raises(ModelError, match="not finite"):
        classify_tile(logits, TilePlan(SIZE, SIZE, SIZE, 0).edges(0, 0))


def test_logits_of_finished_rows_are_dropped():
    """What is kept does not grow with the height, and is less than a tile and a half for each column of tiles."""
    plan, rng = TilePlan(80, 2000, SIZE, 8), np.random.default_rng(0)
    assert holds_less_than_sums(plan)
    assert not holds_less_than_sums(TilePlan(80, 2000, SIZE, 9))
    window = Window(0, 0, 80, 2000)
    buffer, most = ClassBuffer(plan, window, 2, OPS), 0
    for row, cols in plan.tiles(window):
        list(buffer.finish_rows(row))
        for col in cols:
            logits, valid = random_tile(rng, 2, "plain")
            edges = plan.edges(row, col)
            buffer.add(Window(col, row, SIZE, SIZE), valid, classify_tile(logits, edges), weights(*edges))
        most = max(most, sum(kept.logits.size for kept in buffer._kept))
    assert most <= 1.5 * len(plan.cols) * 2 * SIZE**2
