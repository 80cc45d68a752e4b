"""Scores against torchmetrics and scikit-learn, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_jaccard_index,
)

from geopsp.legend import IGNORE, Legend
from geopsp.metrics import Confusion

QUICK = settings(max_examples=25, deadline=None)


def legend(classes):
    return Legend.from_names({10 * i: f"class {i}" for i in range(classes)})


def labels(seed, classes, size=200):
    """Truth, prediction and the known pixels of both; some classes may not occur."""
    rng = np.random.default_rng(seed)
    there = rng.choice(classes, rng.integers(1, classes + 1), replace=False)
    truth, found = (rng.choice(there, size).astype(np.uint8) for _ in range(2))
    truth[rng.random(size) < 0.2] = IGNORE
    return truth, found, truth != IGNORE


@given(seed=st.integers(0, 9999), classes=st.integers(2, 8))
@QUICK
def test_scores_are_those_of_torchmetrics_and_scikit_learn(seed, classes):
    truth, found, known = labels(seed, classes)
    scores = Confusion(legend(classes))
    for part in np.array_split(np.arange(truth.size), 3):
        scores.add(truth[part], found[part])
    t, f = (torch.from_numpy(a.astype(np.int64)) for a in (truth, found))
    options = {"num_classes": classes, "ignore_index": IGNORE}
    assert np.array_equal(scores.counts, multiclass_confusion_matrix(f, t, **options).numpy())
    jaccard = multiclass_jaccard_index(f, t, **options, average="none", zero_division=torch.nan)
    np.testing.assert_allclose(scores.iou(), jaccard.numpy(), rtol=1e-6)
    assert scores.accuracy() == pytest.approx(float(multiclass_accuracy(f, t, **options, average="micro")))
    rows = scores.per_class()
    f1 = multiclass_f1_score(f, t, **options, average="none", zero_division=0).numpy()
    np.testing.assert_allclose(rows["f1"].fillna(0), f1, rtol=1e-6)
    precision, recall, f1, pixels = sk.precision_recall_fscore_support(
        truth[known], found[known], labels=range(classes), zero_division=np.nan
    )
    for name, expected in {"precision": precision, "recall": recall, "f1": f1, "pixels": pixels}.items():
        np.testing.assert_allclose(rows[name], expected, rtol=1e-9, err_msg=name)


@given(seed=st.integers(0, 9999))
@QUICK
def test_ignored_pixels_of_either_side_are_left_out(seed):
    truth, found, _ = labels(seed, 4)
    found[:30] = IGNORE
    scores, clean = Confusion(legend(4)), Confusion(legend(4))
    scores.add(truth, found)
    known = (truth != IGNORE) & (found != IGNORE)
    clean.add(truth[known], found[known])
    assert np.array_equal(scores.counts, clean.counts)
    assert scores.counts.sum() == known.sum()


def by_hand():
    return Confusion(legend(4), np.array([[6, 2, 0, 0], [1, 3, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]], np.int64))


def test_scores_by_hand():
    scores = by_hand()
    assert scores.iou().tolist() == pytest.approx([6 / 9, 3 / 7, math.nan, 0], nan_ok=True)
    assert scores.mean_iou() == pytest.approx((6 / 9 + 3 / 7 + 0) / 3)
    assert scores.accuracy() == pytest.approx(9 / 13)
    rows = scores.per_class()
    assert list(rows.columns) == ["precision", "recall", "f1", "iou", "pixels"]
    assert list(rows.index) == [f"class {i}" for i in range(4)]
    assert rows.index.name == "class"
    assert rows["precision"].tolist() == pytest.approx([6 / 7, 3 / 6, math.nan, math.nan], nan_ok=True)
    assert rows["recall"].tolist() == pytest.approx([6 / 8, 3 / 4, math.nan, 0], nan_ok=True)
    assert rows["f1"].tolist() == pytest.approx([12 / 15, 6 / 10, math.nan, 0], nan_ok=True)
    assert rows["pixels"].tolist() == [8, 4, 0, 1]


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
    scores.add(np.full((4, 4), IGNORE, np.uint8), np.zeros((4, 4), np.uint8))
    assert math.isnan(scores.mean_iou())
    assert math.isnan(scores.accuracy())
    assert scores.per_class().drop(columns="pixels").isna().all(axis=None)


def test_counts_do_not_wrap_around():
    scores = Confusion(Legend.from_names({i: f"class {i}" for i in range(250)}))
    scores.add(np.full(10, 249, np.uint8), np.full(10, 248, np.uint8))
    assert scores.counts[249, 248] == scores.counts.sum() == 10
