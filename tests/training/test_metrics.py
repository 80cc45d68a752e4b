"""Scores against torchmetrics and scikit-learn, and by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn import metrics as sk
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_jaccard_index,
)

from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.training.metrics import Confusion, boundary_counts, boundary_width

QUICK = settings(max_examples=examples(25), deadline=None)


def legend(classes):
    return Legend.from_names({10 * i: f"class {i}" for i in range(classes)})


def labels(seed, classes, size=200):
    """Truth, prediction and the known pixels of both; some classes may not occur."""
    rng = np.random.default_rng(seed)
    there = rng.choice(classes, rng.integers(1, classes + 1), replace=False)
    truth, found = (rng.choice(there, size).astype(np.uint8) for _ in range(2))
    truth[rng.random(size) < 0.2] = IGNORE_INDEX
    return truth, found, truth != IGNORE_INDEX


@given(seed=st.integers(0, 9999), classes=st.integers(2, 8))
@QUICK
def test_scores_are_those_of_torchmetrics_and_scikit_learn(seed, classes):
    truth, found, known = labels(seed, classes)
    scores = Confusion(legend(classes))
    for part in np.array_split(np.arange(truth.size), 3):
        scores.add(truth[part], found[part])
    t, f = (torch.from_numpy(a.astype(np.int64)) for a in (truth, found))
    options = {"num_classes": classes, "ignore_index": IGNORE_INDEX}
    assert np.array_equal(scores.counts, multiclass_confusion_matrix(f, t, **options).numpy())
    jaccard = multiclass_jaccard_index(f, t, **options, average="none", zero_division=torch.nan)
    np.testing.assert_allclose(scores.iou(), jaccard.numpy(), rtol=1e-6)
    assert scores.mean_iou() == pytest.approx(float(jaccard.nanmean()), rel=1e-6)
    assert scores.accuracy() == pytest.approx(float(multiclass_accuracy(f, t, **options, average="micro")))
    rows = scores.per_class()
    f1 = multiclass_f1_score(f, t, **options, average="none", zero_division=0).numpy()
    np.testing.assert_allclose(rows["f1"].fillna(0), f1, rtol=1e-6)
    precision, recall, f1, pixels = sk.precision_recall_fscore_support(
        truth[known], found[known], labels=range(classes), zero_division=np.nan
    )
    for name, expected in {"precision": precision, "recall": recall, "f1": f1, "pixels": pixels}.items():
        np.testing.assert_allclose(rows[name], expected, rtol=1e-9, err_msg=name)
    there = np.union1d(truth[known], found[known])  # asked about these alone, scikit-learn has no class to call 0
    dice = sk.f1_score(truth[known], found[known], labels=there, average="macro", zero_division=0)
    assert scores.mean_dice() == pytest.approx(dice)


@given(seed=st.integers(0, 9999))
@QUICK
def test_ignored_pixels_of_either_side_are_left_out(seed):
    truth, found, _ = labels(seed, 4)
    found[:30] = IGNORE_INDEX
    scores, clean = Confusion(legend(4)), Confusion(legend(4))
    scores.add(truth, found)
    known = (truth != IGNORE_INDEX) & (found != IGNORE_INDEX)
    clean.add(truth[known], found[known])
    assert np.array_equal(scores.counts, clean.counts)
    assert scores.counts.sum() == known.sum()


def by_hand():
    return Confusion(legend(4), np.array([[6, 2, 0, 0], [1, 3, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]], np.int64))


def test_scores_by_hand():
    scores = by_hand()
    assert scores.iou().tolist() == pytest.approx([6 / 9, 3 / 7, math.nan, 0], nan_ok=True)
    assert scores.mean_iou() == pytest.approx((6 / 9 + 3 / 7 + 0) / 3)
    assert scores.dice().tolist() == pytest.approx([12 / 15, 6 / 10, math.nan, 0], nan_ok=True)
    assert scores.mean_dice() == pytest.approx((12 / 15 + 6 / 10 + 0) / 3)
    assert scores.accuracy() == pytest.approx(9 / 13)
    rows = scores.per_class()
    assert list(rows.columns) == ["precision", "recall", "f1", "iou", "pixels"]
    assert list(rows.index) == [f"class {i}" for i in range(4)]
    assert rows.index.name == "class"
    assert rows["precision"].tolist() == pytest.approx([6 / 7, 3 / 6, math.nan, math.nan], nan_ok=True)
    assert rows["recall"].tolist() == pytest.approx([6 / 8, 3 / 4, math.nan, 0], nan_ok=True)
    assert rows["f1"].tolist() == pytest.approx([12 / 15, 6 / 10, math.nan, 0], nan_ok=True)
    assert rows["pixels"].tolist() == [8, 4, 0, 1]


def test_an_absent_class_is_left_out_of_the_means():
    """arcgis.learn counts it as 0, so that a perfect map of one class of two scores 1/2; smp counts it as 1."""
    scores = Confusion(legend(2), np.array([[5, 0], [0, 0]], np.int64))
    assert scores.mean_iou() == scores.mean_dice() == 1
    wrong = Confusion(legend(3), np.array([[0, 5, 0], [0, 0, 0], [0, 0, 0]], np.int64))
    assert wrong.mean_iou() == wrong.mean_dice() == 0


def test_the_table_has_truth_in_rows():
    table = by_hand().table()
    assert table.loc["class 0", "class 1"] == 2
    assert table.index.name == "true"


def test_confused_is_the_share_that_took_the_others_name():
    scores = by_hand()
    assert scores.confused("class 0", "class 1") == scores.confused("class 1", "class 0") == pytest.approx(3 / 12)
    assert math.isnan(scores.confused("class 2", "class 3"))


def test_nothing_scores_nan():
    scores = Confusion(legend(3))
    scores.add(np.full((4, 4), IGNORE_INDEX, np.uint8), np.zeros((4, 4), np.uint8))
    assert math.isnan(scores.mean_iou())
    assert math.isnan(scores.mean_dice())
    assert math.isnan(scores.mean_boundary_iou())
    assert math.isnan(scores.accuracy())
    assert scores.per_class().drop(columns="pixels").isna().all(axis=None)


def test_counts_do_not_wrap_around():
    scores = Confusion(Legend.from_names({i: f"class {i}" for i in range(250)}))
    scores.add(np.full(10, 249, np.uint8), np.full(10, 248, np.uint8))
    assert scores.counts[249, 248] == scores.counts.sum() == 10


def maps(seed, classes, shape=(2, 19, 24)):
    """Truth and map of some blobs; 0, some or all of the pixels unknown in either."""
    rng = np.random.default_rng(seed)

    def blobs():
        noise = ndimage.gaussian_filter(rng.normal(size=(classes, *shape)), (0, 0, 2, 2))
        return noise.argmax(axis=0).astype(np.uint8)

    truth, found = blobs(), blobs()
    found = np.where(rng.random(shape) < 0.8, truth, found)
    for part in (truth, found):
        part[blobs() < rng.integers(0, classes)] = IGNORE_INDEX
    return truth, found


def boundary(mask, known, width):
    """What erosion by a square takes away, where neither the edge nor the unknown erodes."""
    inside = ndimage.binary_erosion(mask | ~known, np.ones((3, 3), bool), iterations=width, border_value=1)
    return mask & known & ~inside


@given(seed=st.integers(0, 9999), classes=st.integers(2, 6), width=st.integers(1, 5))
@QUICK
def test_boundaries_are_what_erosion_takes_away(seed, classes, width):
    truth, found = maps(seed, classes)
    expected = np.zeros((classes, 2), int)
    for t, f in zip(truth, found, strict=True):
        known = (t != IGNORE_INDEX) & (f != IGNORE_INDEX)
        for c in range(classes):
            true, drawn = boundary(t == c, known, width), boundary(f == c, known, width)
            expected[c] += (true & drawn).sum(), (true | drawn).sum()
    for dtype in (torch.uint8, torch.int64):
        counts = boundary_counts(torch.from_numpy(truth).to(dtype), torch.from_numpy(found).to(dtype), classes, width)
        assert counts.dtype == torch.int64
        assert np.array_equal(counts.numpy(), expected)


def test_boundary_counts_by_hand():
    """In a row of seven, the step is one pixel late; the last pixel is unknown.

    Width 1: truth has a boundary in pixels 2 and 3, the map in 3 and 4. Width 2: 1 to 4, and 2 to 5.
    """
    truth = torch.tensor([[[0, 0, 0, 1, 1, 1, IGNORE_INDEX]]])
    found = torch.tensor([[[0, 0, 0, 0, 1, 1, 0]]])
    assert boundary_counts(truth, found, 3, 1).tolist() == [[0, 2], [0, 2], [0, 0]]
    assert boundary_counts(truth, found, 3, 2).tolist() == [[1, 3], [1, 3], [0, 0]]


def test_neither_edges_nor_unlabelled_pixels_are_boundaries():
    labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    labels[0, 3:5] = IGNORE_INDEX
    assert boundary_counts(labels, labels * 0, 2, 3).sum() == 0
    assert boundary_counts(labels * 0, labels, 2, 3).sum() == 0


def test_the_last_of_255_classes_is_not_mistaken_for_an_unlabelled_pixel():
    labels = torch.tensor([[[254, 253, IGNORE_INDEX]]], dtype=torch.uint8)
    assert boundary_counts(labels, labels, 255, 1)[252:].tolist() == [[0, 0], [1, 1], [1, 1]]


@given(seed=st.integers(0, 9999), width=st.integers(1, 9))
@QUICK
def test_counts_of_a_split_are_those_of_its_tiles_and_a_map_agrees_with_itself(seed, width):
    truth, found = (torch.from_numpy(part) for part in maps(seed, 4))
    whole = boundary_counts(truth, found, 4, width)
    assert torch.equal(whole, sum(boundary_counts(truth[i : i + 1], found[i : i + 1], 4, width) for i in range(2)))
    assert (whole[:, 0] <= whole[:, 1]).all()
    assert torch.equal(whole, boundary_counts(found, truth, 4, width))
    same = boundary_counts(truth, truth, 4, width)
    assert torch.equal(same[:, 0], same[:, 1])


def test_boundary_scores_by_hand():
    scores = Confusion(by_hand().legend, by_hand().counts, np.array([[1, 4], [3, 4], [0, 0], [0, 2]]))
    assert scores.boundary_iou().tolist() == pytest.approx([1 / 4, 3 / 4, math.nan, 0], nan_ok=True)
    assert scores.mean_boundary_iou() == pytest.approx(1 / 3)
    rows = scores.per_class()
    assert list(rows.columns) == ["precision", "recall", "f1", "iou", "boundary_iou", "pixels"]
    assert rows["boundary_iou"].tolist() == pytest.approx(scores.boundary_iou().tolist(), nan_ok=True)
    content = json.loads(json.dumps(scores.to_json(), allow_nan=False))
    assert content["boundary_miou"] == pytest.approx(1 / 3)
    assert content["dice"] == pytest.approx(scores.mean_dice())
    assert [row["boundary_iou"] for row in content["per_class"].values()] == [1 / 4, 3 / 4, None, 0]


def test_boundaries_that_were_not_counted_are_not_shown():
    scores = by_hand()
    assert np.isnan(scores.boundary_iou()).all()
    assert scores.boundary_iou().shape == (4,)
    assert "boundary" not in json.dumps(scores.to_json())


@pytest.mark.parametrize(("size", "width"), [(1, 1), (16, 1), (64, 2), (256, 7), (512, 14)])
def test_a_boundary_is_two_hundredths_of_the_diagonal_wide(size, width):
    assert boundary_width(size) == width
