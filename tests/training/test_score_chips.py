"""What is counted of chips as they are scored, and what reports show of them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pytest
import shapely
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geopsp import ChipSet, PixelClassifier, prepare_data
from geopsp.core.bands import BandStats
from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.core.pixel_values import RAW, PixelValues
from geopsp.data.dataset import RawChip
from geopsp.training.band_histograms import BINS, MAX_CHIPS, count_values, empty_histograms
from geopsp.training.chip_counts import ChipCounts, ChipScore, worst_and_best
from geopsp.training.chip_footprints import chip_footprints
from geopsp.training.metrics import Confusion
from geopsp.training.report_classifier import score_test_chips
from geopsp.training.score_classifier import score_validation


@given(hnp.arrays(np.uint8, (6, 2, 4, 4), elements=st.sampled_from([0, 1, 2, IGNORE_INDEX])))
def test_counts_by_block_and_chip_are_those_of_all_pixels(pairs):
    """Three chips of two tiles each, in two blocks."""
    labels, predicted = (torch.from_numpy(pairs[:, part].astype(np.int64)) for part in range(2))
    predicted = predicted.clamp(max=2)
    rows = torch.tensor([4, 4, 7, 7, 9, 9])
    counts = ChipCounts(np.array([0, 1, 0]), np.array([4, 7, 9]), 3)
    for part in (slice(0, 3), slice(3, 6)):
        counts.add(rows[part], labels[part], predicted[part])
    counts.finish()
    legend = Legend.from_names(dict(enumerate("abc")))
    whole = Confusion(legend)
    whole.add(labels.numpy(), predicted.numpy())
    np.testing.assert_array_equal(counts.confusions.sum(axis=0), whole.counts)
    second = Confusion(legend)
    second.add(labels[2:4].numpy(), predicted[2:4].numpy())
    np.testing.assert_array_equal(counts.confusions[1], second.counts)
    for score in counts.scores:
        chip = Confusion(legend)
        chip.add(labels[rows == score.row].numpy(), predicted[rows == score.row].numpy())
        assert (score.pixels, score.miou, score.accuracy) == (chip.counts.sum(), chip.mean_iou(), chip.accuracy())
    assert len(counts.scores) == (labels.view(3, -1) != IGNORE_INDEX).any(dim=1).sum()


def test_blocks_of_many_classes_share_their_counts(monkeypatch):
    monkeypatch.setattr("geopsp.training.chip_counts.MAX_COUNTS", 64 * 9)
    counts = ChipCounts(np.arange(1000), np.arange(1000), 3)
    assert counts.confusions.shape == (64, 3, 3)
    counts.add(torch.tensor([64]), torch.zeros(1, 2, 2, dtype=torch.int64), torch.ones(1, 2, 2, dtype=torch.int64))
    counts.finish()
    assert counts.confusions[0, 0, 1] == 4


def test_worst_and_best_chips():
    """Hardly labelled ones are neither, and one class alone is no good example."""
    scores = [
        ChipScore(row, pixels, classes, miou, 0.5)
        for row, (pixels, classes, miou) in enumerate(
            [(100, 2, 0.9), (100, 1, 1.0), (100, 2, 0.2), (9, 2, 0.0), (100, 3, 0.6), (100, 2, 0.3)]
        )
    ]
    worst, best = worst_and_best(scores, worst=2, best=2)
    assert [score.row for score in worst] == [2, 5]
    assert [score.row for score in best] == [0, 4]
    assert worst_and_best([], worst=2, best=2) == ([], [])
    worst, best = worst_and_best(scores[:1], worst=2, best=2)
    assert ([score.row for score in worst], best) == ([0], [])


def histogram_of(data, *, dtype="uint8", values=RAW, trained=RAW, valid=None):
    """Of one band, as a reader gives it for one chip."""
    data = np.asarray(data, dtype)[None, None]
    valid = np.ones(data.shape[1:], bool) if valid is None else np.array([valid])
    stats = BandStats.from_array(data, valid)
    empty = empty_histograms(["red"], stats, dtype)
    reader = SimpleNamespace(margin=0, read=lambda *_: RawChip(data, valid, np.zeros(valid.shape, np.uint8)))
    counts = count_values(empty, reader, np.array([0]), data.shape[-1], values=values, trained=trained)
    return empty[0], counts[0]


def test_bins_of_whole_numbers_hold_one_value_each_where_they_can():
    empty, counts = histogram_of([3, 3, 4, 7, 7, 7])
    assert (empty.low, empty.high) == (3, 8)
    assert counts == [2, 1, 0, 0, 3]
    empty, counts = histogram_of(np.arange(100))
    assert set(counts[:-1]) == {3}
    assert sum(counts) == 100
    assert (empty.high - empty.low) / len(counts) == 3


def test_values_beyond_are_in_the_outer_bins_and_invalid_ones_in_none():
    stats = BandStats.from_array(np.linspace(0, 1, 100).reshape(1, 10, 10), np.ones((10, 10), bool))
    empty = empty_histograms(["red"], stats, "float32")
    data = np.array([[[-9.0, 0.5, 99.0, np.nan]]])
    valid = np.array([[True, True, True, False]])
    reader = SimpleNamespace(read=lambda *_: RawChip(data, valid, valid.astype(np.uint8)))
    (counts,) = count_values(empty, reader, np.arange(500), 4, values=RAW, trained=RAW)
    assert (counts[0], counts[BINS // 2], counts[-1], sum(counts)) == (*[MAX_CHIPS] * 3, 3 * MAX_CHIPS)
    flat, counts = histogram_of([5.0] * 4, dtype="float32")
    assert flat.high > flat.low
    assert sum(counts) == 4


def test_values_of_another_meaning_are_converted():
    physical, stored = PixelValues(scaled=True, scales=((0.1, 0.0),)), PixelValues(scaled=False, scales=((0.1, 0.0),))
    _, expected = histogram_of([0, 10, 20, 30])
    empty = empty_histograms(
        ["red"], BandStats.from_array(np.array([[[0, 10, 20, 30]]]), np.ones((1, 4), bool)), "uint8"
    )
    data, valid = np.array([[[0.0, 1.0, 2.0, 3.0]]]), np.ones((1, 4), bool)
    reader = SimpleNamespace(read=lambda *_: RawChip(data, valid, valid.astype(np.uint8)))
    (counts,) = count_values(empty, reader, np.array([0]), 4, values=physical, trained=stored)
    assert counts == expected


def chips_at(shapes, crs="EPSG:32632"):
    return SimpleNamespace(index=gpd.GeoDataFrame({"id": range(len(shapes))}, geometry=shapes, crs=crs))


def test_outlines_of_many_chips_are_a_sample():
    chips = chips_at([shapely.box(x, 0, x + 1, 1) for x in range(20_000)])
    rows = np.arange(20_000)
    found = chip_footprints(chips, train=rows[:16_000], valid=rows[16_000:])
    assert (found.total, found.shown, len(found.train), len(found.valid)) == (20_000, 3000, 2400, 600)
    assert len({ring[0] for ring in found.train}) == 2400
    assert len(found.model_dump_json()) < 250_000


def test_outlines_have_four_corners_also_after_a_warp():
    tilted = shapely.Polygon([(0, 0), (1, 0.1), (2, 0), (2, 2), (0, 2)])
    found = chip_footprints(chips_at([tilted, None, shapely.box(5, 5, 6, 6)]), train=np.arange(3))
    assert [len(ring) for ring in found.train] == [8, 8]
    assert found.train[1] == [6, 5, 6, 6, 5, 6, 5, 5]
    assert chip_footprints(chips_at([None], None), train=np.arange(1)) is None
    assert chip_footprints(chips_at([None]), train=np.arange(1)) is None


def test_a_saved_model_tells_of_its_training(trained, small_world):
    model = PixelClassifier.from_model(trained)
    record, data = model.model.record, prepare_data(small_world["chips"], batch_size=8)
    assert record.scores.confusion == model.model.metrics["confusion"]["rows_true"]
    assert record.split.train == len(data.train_rows) == len(record.footprints.train)
    assert record.split.words == str(data.audit)
    assert [each.train_pixels for each in record.classes] == list(data.num_pixels_per_class.values())
    assert record.code[0] == f"data = prepare_data({str(small_world['chips'])!r})"
    assert record.code[1] == "model = PSPNetClassifier(data, backbone='tu-test_resnet', encoder_weights=None)"
    assert record.code[2] == "model.fit(5, lr=0.003)"
    assert record.seconds == pytest.approx(sum(row["seconds"] for row in model.model.history), abs=0.1)
    assert [each.band for each in record.bands] == list(model.model.bands)
    pixels = MAX_CHIPS * 32**2
    assert all(0.9 * pixels < sum(each.counts) <= pixels for each in record.bands)
    assert record.inputs[0].path == str(small_world["chips"])
    kinds = [picture.kind for picture in record.scores.pictures]
    assert kinds == sorted(kinds, reverse=True)
    assert set(kinds) == {"worst", "best"}


def test_scores_for_a_report_are_those_of_an_evaluation(trained, small_world):
    chips = ChipSet.open(small_world["chips"])
    chips = replace(chips, index=chips.index.iloc[:40])
    scores, found = score_test_chips(trained, chips, "cpu", allow_resolution_mismatch=False)
    expected = PixelClassifier.from_model(trained, device="cpu").evaluate(chips)
    np.testing.assert_array_equal(scores.counts, expected.counts)
    np.testing.assert_array_equal(scores.boundary, expected.boundary)
    assert found.confusion == expected.counts.tolist()
    low, high = found.intervals[0]
    assert low < expected.mean_iou() < high
    assert found.name == "the chips in chips"
    assert found.footprints.shown == found.chips == len(chips)
    assert found.reliability[0].ece == expected.reliability.ece()


@pytest.mark.slow
def test_training_on_makes_a_new_record(small_world, trained):
    data = prepare_data(small_world["chips"], batch_size=8, seed=1)
    model = PixelClassifier.from_model(trained, data=data)
    before = model.model.record
    model.freeze()
    model.fit(1, 1e-3)
    record = model.model.record
    assert record.scores is None
    assert record.code[1:] == [
        f"model = PixelClassifier.from_model({str(trained)!r}, data=data)", "model.freeze()", "model.fit(1, lr=0.001)",
    ]  # fmt: skip
    assert record.seconds > before.seconds
    scores = score_validation(model)
    assert model.model.record.scores.confusion == scores.counts.tolist()
