"""Scores of probabilities, against torchmetrics and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_calibration_error

from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.errors import OptionError
from geopsp.models.calibration import Calibration
from geopsp.training.metrics import Confusion
from geopsp.training.plots import plot_reliability
from geopsp.training.reliability import Reliability, ReliabilityCounter, ReliabilityCounts

LEGEND = Legend.from_names({0: "a", 1: "b", 2: "c"})


def counted(probabilities, labels, batches=1) -> Reliability:
    counts = ReliabilityCounts(3, torch.device("cpu"))
    for part, truth in zip(probabilities.chunk(batches), labels.chunk(batches), strict=True):
        counts.add(truth, part, part.argmax(dim=1))
    return counts.result(LEGEND)


def made(seed, count=400):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, 3, generator=generator)
    labels = torch.randint(0, 3, (count,), generator=generator)
    labels[torch.rand(count, generator=generator) < 0.2] = IGNORE_INDEX
    return logits.softmax(dim=1), labels


@given(st.integers(0, 2**31), st.integers(1, 4))
@settings(max_examples=examples(30), deadline=None)
def test_errors_are_those_of_torchmetrics(seed, batches):
    probabilities, labels = made(seed)
    found = counted(probabilities, labels, batches)
    known = labels != IGNORE_INDEX
    for norm, ours in (("l1", found.ece()), ("max", found.mce())):
        theirs = multiclass_calibration_error(probabilities[known], labels[known], 3, n_bins=15, norm=norm)
        assert ours == pytest.approx(float(theirs), abs=1e-5)
    truth = torch.nn.functional.one_hot(labels[known], 3)
    assert found.brier() == pytest.approx(float(((probabilities[known] - truth) ** 2).sum(dim=1).mean()), abs=1e-5)
    assert found.nll() == pytest.approx(
        float(torch.nn.functional.nll_loss(probabilities[known].log(), labels[known])), abs=1e-4
    )
    assert found.pixels == int(known.sum())


@given(st.integers(0, 2**31))
@settings(max_examples=examples(20), deadline=None)
def test_classwise_errors_are_those_of_each_class_against_the_rest(seed):
    probabilities, labels = made(seed)
    known = labels != IGNORE_INDEX
    p, y = probabilities[known].double().numpy(), labels[known].numpy()
    for channel, found in enumerate(counted(probabilities, labels).classwise_ece()):
        number = np.minimum((p[:, channel].astype(np.float32) * np.float32(15)).astype(int), 14)
        gaps = [abs((p[number == b, channel] - (y[number == b] == channel)).sum()) for b in range(15)]
        assert found == pytest.approx(sum(gaps) / len(y), abs=1e-6)


def test_adaptive_bins_hold_about_as_many_pixels():
    probabilities, labels = made(1, count=30_000)
    table = counted(probabilities, labels).bins(adaptive=True)
    assert len(table) == 15
    assert table["pixels"].max() < 1.3 * table["pixels"].min()
    assert (table["low"].to_numpy()[1:] == table["high"].to_numpy()[:-1]).all()


def test_by_hand():
    """Two pixels of confidence 0.7, one of them right: a gap of 0.2; two of 0.9, both right: 0.1."""
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.7, 0.1, 0.2], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]])
    found = counted(probabilities, torch.tensor([0, 1, 1, 2]))
    assert (found.ece(), found.mce()) == (pytest.approx(0.15), pytest.approx(0.2))
    assert found.bins()[["pixels", "accuracy"]].to_numpy().tolist() == [[2, 0.5], [2, 1.0]]
    assert found.nll() == pytest.approx(-(math.log(0.7) + math.log(0.1) + 2 * math.log(0.9)) / 4)
    assert found.mean_confidence() == pytest.approx(0.8)
    sure = counted(torch.eye(3), torch.arange(3))
    assert (sure.ece(), sure.nll(), sure.brier()) == (0, 0, 0)
    assert sure.bins()[["low", "high"]].to_numpy() == pytest.approx(np.array([[14 / 15, 1]]))
    with pytest.raises(OptionError, match="`bins`"):
        found.bins(bins=0)


def test_nothing_counted_is_nan_and_none_in_json():
    found = counted(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    assert all(math.isnan(each) for each in (found.ece(), found.mce(), found.nll(), found.brier()))
    scores = found.to_json()
    assert (scores["ece"], scores["pixels"], scores["bins"]) == (None, 0, [])


def test_scores_keep_their_keys_and_tell_both():
    """A batch of logits with an ignored class: with calibration the mean confidence is lower, classes are the same."""
    logits = 3 * torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    logits[:, 2] = -torch.inf
    labels = torch.randint(0, 2, (2, 8, 8))
    counter = ReliabilityCounter(Calibration("temperature", 3.0), 3, [2], torch.device("cpu"))
    counter.add(labels, logits, logits.argmax(dim=1))
    scores = Confusion(LEGEND, np.eye(3, dtype=np.int64), None, *counter.results(LEGEND))
    entry = scores.to_json()
    assert {"miou", "dice", "accuracy", "per_class", "confusion"} <= set(entry)
    plain, calibrated = entry["calibration"]["uncalibrated"], entry["calibration"]["calibrated"]
    assert plain["mean_confidence"] > calibrated["mean_confidence"] + 0.1
    assert sum(row["pixels"] for row in calibrated["bins"]) == plain["pixels"] == 128
    assert calibrated["classwise_ece"]["c"] == 0
    assert "calibration" not in Confusion(LEGEND, np.eye(3, dtype=np.int64)).to_json()
    figure = plot_reliability(scores)
    assert [axes.get_title() for axes in figure.axes] == ["uncalibrated", "calibrated"]
